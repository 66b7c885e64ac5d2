"""The report of a tower: its numbers come from the tower, and unreadable pictures are listed."""

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.dataset import Samples
from vision.errors import ImageError
from vision.images import load
from vision.report import EvaluationOptions, evaluate_probabilities, evaluate_tower
from vision.report.calibration import fit_temperature
from vision.report.robustness import CORRUPTIONS, corrupt, shrink
from vision.tower import VisionTower


@pytest.fixture(scope="module")
def samples(planted: Callable[..., Samples]) -> Samples:
    """Return twenty pictures, of which one is damaged and one is missing."""
    samples = planted(20, seed=1)
    assert samples.root is not None
    (samples.root / "4.png").write_bytes(b"torn")
    (samples.root / "9.png").unlink()
    return samples


CLEAN = EvaluationOptions(robustness=False)
READABLE = [row for row in range(20) if row not in (4, 9)]


def paths(samples: Samples, rows: list[int]) -> list[Path]:
    assert samples.root is not None
    return [samples.root / samples.images[row] for row in rows]


def test_the_numbers_follow_from_the_probabilities_of_the_tower(
    tower: VisionTower, samples: Samples
) -> None:
    report = evaluate_tower(
        tower, samples, options=EvaluationOptions(robustness=False, batch_size=7)
    )
    probabilities = tower.predict_proba(paths(samples, READABLE))
    for target, result in report.targets.items():
        labels = samples.targets[target][READABLE]
        wanted = evaluate_probabilities(probabilities[target], labels, samples.classes[target])
        assert result.accuracy == wanted.accuracy
        assert result.confusion == wanted.confusion
        assert result.calibration.raw.ece == pytest.approx(wanted.calibration.raw.ece, abs=1e-5)
        assert result.robustness == ()
    assert report.targets["colour"].accuracy.mean > 0.6, "chance is 0.25"
    assert (report.backbone, report.size, report.n_pictures) == ("test_resnet", 32, 18)


def test_unreadable_pictures_are_left_out_with_the_reason(
    tower: VisionTower, samples: Samples
) -> None:
    report = evaluate_tower(tower, samples, options=CLEAN)
    assert list(report.rejected) == ["4.png", "9.png"]
    assert "cannot be decoded" in report.rejected["4.png"]
    assert "cannot be found" in report.rejected["9.png"]


def test_curves_are_the_accuracy_on_pictures_corrupted_one_by_one(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(8, seed=2)
    report = evaluate_tower(tower, samples, options=EvaluationOptions(seed=3))
    corrupted = []
    for row, path in enumerate(paths(samples, list(range(8)))):
        picture = shrink(Image.open(path).convert("RGB"), 32)
        corrupted.append(corrupt(picture, np.random.default_rng([3, row])))
    for target, result in report.targets.items():
        labels = samples.targets[target]
        right = []
        for versions in zip(*corrupted, strict=True):
            predicted = tower.predict_proba(versions)[target].argmax(axis=1)
            right.append((predicted == labels)[labels >= 0].mean())
        got = [accuracy for curve in result.robustness for accuracy in curve.accuracy]
        np.testing.assert_allclose(got, right)
        assert [curve.corruption for curve in result.robustness] == list(CORRUPTIONS)


def test_corrupted_pictures_change_only_the_curves(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(8, seed=2)
    plain = evaluate_tower(tower, samples, options=CLEAN)
    report = evaluate_tower(tower, samples)
    assert [one.image for one in report.hardest] == [one.image for one in plain.hardest]
    for target, result in report.targets.items():
        assert result.confusion == plain.targets[target].confusion
        ece = plain.targets[target].calibration.raw.ece
        assert result.calibration.raw.ece == pytest.approx(ece, abs=1e-5)


def test_each_picture_is_decoded_once_however_often_it_is_corrupted(
    tower: VisionTower, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(image: Path, root: Path | None, *, min_side: int) -> Image.Image:
        opened.append(image)
        return load(image, root, min_side=min_side)

    monkeypatch.setattr("vision.report.predictions.load", counted)
    evaluate_tower(tower, samples)
    assert sorted(opened) == sorted(samples.images)


def test_the_same_seed_gives_the_same_report_for_every_batch_size(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(8, seed=3)
    first = evaluate_tower(tower, samples, options=EvaluationOptions(seed=1))
    again = evaluate_tower(tower, samples, options=EvaluationOptions(seed=1, batch_size=5))
    other = evaluate_tower(tower, samples, options=EvaluationOptions(seed=2))
    for target, result in first.targets.items():
        assert result.robustness == again.targets[target].robustness
        assert result.macro_f1 == again.targets[target].macro_f1
    assert first.targets["colour"].robustness != other.targets["colour"].robustness


def test_temperatures_are_fitted_to_the_calibration_samples_only(
    tower: VisionTower, samples: Samples, planted: Callable[..., Samples]
) -> None:
    other = planted(30, seed=5)
    unknown = {**other.targets, "side.of it": np.full(30, -1)}
    calibration = replace(other, targets=unknown)
    report = evaluate_tower(tower, samples, calibration=calibration, options=CLEAN)
    probabilities = tower.predict_proba(paths(other, list(range(30))))["colour"]
    wanted = fit_temperature(probabilities, other.targets["colour"])
    assert report.targets["colour"].calibration.temperature == pytest.approx(wanted, rel=1e-3)
    assert report.targets["side.of it"].calibration.temperature is None, "no label to fit it to"
    plain = evaluate_tower(tower, samples, options=CLEAN)
    assert plain.targets["colour"].calibration.temperature is None


def test_groups_stay_with_their_pictures_when_some_are_unreadable(
    tower: VisionTower, samples: Samples
) -> None:
    stores = ["torn" if row in (4, 9) else f"store {row % 2}" for row in range(20)]
    report = evaluate_tower(tower, samples, slices={"store": stores}, options=CLEAN)
    by_store = [one for one in report.targets["colour"].slices if one.grouping == "store"]
    assert [(one.group, one.n_pictures) for one in by_store] == [("store 0", 9), ("store 1", 9)]
    assert len(report.targets["colour"].slices) > 2, "grouped by frequency, too"


def test_the_hardest_pictures_have_the_least_probable_labels(
    tower: VisionTower, samples: Samples
) -> None:
    report = evaluate_tower(tower, samples, options=CLEAN)
    assert report.hardest_target == "colour"
    p = tower.predict_proba(paths(samples, READABLE))["colour"]
    labels = samples.targets["colour"][READABLE]
    order = np.argsort(p[np.arange(18), labels], kind="stable")
    assert [one.image for one in report.hardest] == [f"{READABLE[row]}.png" for row in order]
    first = report.hardest[0]
    names = samples.classes["colour"]
    assert first.label == names[labels[order[0]]]
    assert first.label_probability == pytest.approx(p[order[0], labels[order[0]]], abs=1e-5)
    assert first.predicted == names[p[order[0]].argmax()]
    assert first.predicted_probability == pytest.approx(p[order[0]].max(), abs=1e-5)
    data = base64.b64decode(first.thumbnail.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (48, 40))


def test_at_most_24_pictures_are_shown(tower: VisionTower, planted: Callable[..., Samples]) -> None:
    report = evaluate_tower(tower, planted(30), options=CLEAN)
    assert len(report.hardest) == 24


def test_a_target_without_a_known_label_is_listed_and_the_others_are_measured(
    tower: VisionTower, samples: Samples
) -> None:
    targets = {**samples.targets, "colour": np.full(20, -1)}
    report = evaluate_tower(tower, replace(samples, targets=targets), options=CLEAN)
    assert list(report.targets) == ["side.of it"]
    assert report.unlabelled == ("colour",)
    assert report.hardest_target == "side.of it"
    assert report.targets["side.of it"].n_unknown == 4


def test_a_single_picture_is_enough_for_a_report(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    report = evaluate_tower(tower, planted(1), slices={})
    assert report.targets["colour"].n_pictures == 1
    assert report.targets["colour"].majority == 1.0
    assert report.unlabelled == ("side.of it",)


def test_a_tower_in_training_mode_stays_in_it(tower: VisionTower, samples: Samples) -> None:
    tower.train()
    try:
        evaluate_tower(tower, samples, options=CLEAN)
        assert tower.training
    finally:
        tower.eval()


def test_progress_is_shown_only_when_asked(
    tower: VisionTower, samples: Samples, capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate_tower(tower, samples, options=CLEAN)
    assert capfd.readouterr() == ("", "")
    evaluate_tower(tower, samples, options=CLEAN, progress=True)
    assert "20/20" in "".join(capfd.readouterr())


def test_samples_without_a_readable_picture_are_refused(
    tower: VisionTower, samples: Samples
) -> None:
    nowhere = replace(samples, root=Path("nowhere"))
    with pytest.raises(ImageError, match=r"none of 20 .*: image '0\.png' cannot be found"):
        evaluate_tower(tower, nowhere)
    none = Samples([], {"colour": np.zeros(0, np.int64)}, {"colour": samples.classes["colour"]})
    with pytest.raises(ImageError, match="none of 0 pictures can be read"):
        evaluate_tower(tower, none)


def test_wrong_arguments_are_refused_by_name(tower: VisionTower, samples: Samples) -> None:
    unknown = {target: np.full(20, -1) for target in samples.targets}
    with pytest.raises(ValueError, match=r"known label .* \(colour, side.of it\), got only -1"):
        evaluate_tower(tower, replace(samples, targets=unknown), options=CLEAN)
    others = replace(samples, classes={**samples.classes, "colour": ["r", "g", "b", "y"]})
    with pytest.raises(ValueError, match=r"samples must have the tower's classes .* for 'colour'"):
        evaluate_tower(tower, others)
    with pytest.raises(ValueError, match="calibration must have the tower's classes"):
        evaluate_tower(tower, samples, calibration=others)
    with pytest.raises(ValueError, match="at least one target to measure, got none"):
        evaluate_tower(tower, Samples(samples.images, {}, {}, samples.root))
    with pytest.raises(ValueError, match=r"slices\['store'\] must have one group .* \(20\), got 1"):
        evaluate_tower(tower, samples, slices={"store": ["x"]})
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate_tower(tower, samples, options=EvaluationOptions(batch_size=0))
