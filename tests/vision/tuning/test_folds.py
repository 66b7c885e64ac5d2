"""Folds are even and disjoint, and predictions come from towers trained on other pictures."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vision.config import VisionConfig
from vision.dataset import Samples
from vision.tuning.folds import CrossValidation, Fold, cross_validate, split_folds, summarise

CONFIG = VisionConfig(
    backbone="test_resnet",
    pretrained=False,
    size=32,
    dim=8,
    epochs=1,
    batch_size=16,
    learning_rate=5e-3,
    augmentation="none",
    label_smoothing=0.0,
    precision="32-true",
)


def labelled(counts: list[int]) -> Samples:
    """Return samples without files, with this number of pictures in each class."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    images = [Path(f"{row}.png") for row in range(len(labels))]
    names = [f"class {number}" for number in range(len(counts))]
    return Samples(images, {"kind": labels}, {"kind": names})


def test_take_keeps_the_chosen_rows_and_all_classes() -> None:
    samples = labelled([3, 2])
    taken = samples.take([4, 0])
    assert taken.images == [Path("4.png"), Path("0.png")]
    assert taken.targets["kind"].tolist() == [1, 0]
    assert taken.targets["kind"].dtype == np.int64
    assert taken.classes == samples.classes
    assert len(samples.take([])) == 0


@pytest.mark.parametrize("groups", [None, [row // 3 for row in range(60)]])
def test_every_row_is_validated_once_by_a_fold_that_does_not_train_on_it(
    groups: list[int] | None,
) -> None:
    samples = labelled([30, 18, 12])
    folds = split_folds(samples, 3, seed=0, groups=groups)
    assert sorted(np.concatenate([fold.validation for fold in folds]).tolist()) == list(range(60))
    for fold in folds:
        assert sorted([*fold.train, *fold.validation]) == list(range(60))
        validated = np.bincount(samples.targets["kind"][fold.validation], minlength=3)
        assert np.abs(validated - [10, 6, 4]).max() <= (0 if groups is None else 3)


def test_pictures_of_one_group_stay_in_one_fold() -> None:
    samples = labelled([20, 20])
    rng = np.random.default_rng(0)
    groups = [("customer", int(number)) for number in rng.integers(0, 9, 40)]
    for fold in split_folds(samples, 4, seed=1, groups=groups):
        train, validation = ({groups[row] for row in rows} for rows in fold)
        assert not train & validation
        assert validation


def test_a_class_with_fewer_pictures_than_folds_is_spread_over_that_many() -> None:
    samples = labelled([10, 2, 1])
    folds = split_folds(samples, 5, seed=0)
    counts = [np.bincount(samples.targets["kind"][fold.validation], minlength=3) for fold in folds]
    assert np.sum(counts, axis=0).tolist() == [10, 2, 1]
    assert np.max(counts, axis=0).tolist() == [2, 1, 1]


def test_folds_depend_on_the_seed_and_spread_the_named_or_last_target() -> None:
    samples = labelled([12, 12])
    both = Samples(
        samples.images,
        {"parity": np.arange(24) % 2, **samples.targets},
        {"parity": ["even", "odd"], **samples.classes},
    )

    def validated(**options: object) -> list[list[int]]:
        folds = split_folds(both, 4, **{"seed": 0, **options})  # type: ignore[arg-type]
        return [fold.validation.tolist() for fold in folds]

    assert validated() == validated(target="kind")
    assert validated() != validated(seed=1)
    for rows in validated(target="parity"):
        assert sum(row % 2 for row in rows) == 3


def test_pictures_without_a_label_are_spread_evenly_too() -> None:
    samples = labelled([9, 9])
    samples.targets["kind"][::3] = -1
    for fold in split_folds(samples, 3, seed=0):
        assert np.sum(samples.targets["kind"][fold.validation] == -1) == 2


def test_impossible_folds_are_refused() -> None:
    samples = labelled([4, 2])
    for n_folds in (1, 5):
        with pytest.raises(ValueError, match=f"between 2 and 4 .*largest class.*, got {n_folds}"):
            split_folds(samples, n_folds, seed=0)
    with pytest.raises(ValueError, match=r"between 2 and 3 .*or groups\), got 4"):
        split_folds(samples, 4, seed=0, groups="aabbcc")
    with pytest.raises(ValueError, match="one entry for each of 6 pictures, got 2"):
        split_folds(samples, 2, seed=0, groups="ab")
    with pytest.raises(ValueError, match="target must be one of kind, got 'size'"):
        split_folds(samples, 2, seed=0, target="size")


@pytest.fixture(scope="module")
def crossed(
    planted: Callable[..., Samples], tmp_path_factory: pytest.TempPathFactory
) -> tuple[CrossValidation, Samples, Path]:
    samples = planted(60)
    assert samples.root is not None
    (samples.root / "7.png").write_bytes(b"not a picture")
    workdir = tmp_path_factory.mktemp("folds")
    return (
        cross_validate(samples, CONFIG, split(samples), workdir=workdir, seed=0),
        samples,
        workdir,
    )


def split(samples: Samples) -> list[Fold]:
    return split_folds(samples, 3, seed=0, target="colour")


def test_out_of_fold_predictions_give_the_measured_accuracy(
    crossed: tuple[CrossValidation, Samples, Path],
) -> None:
    result, samples, _ = crossed
    folds = split(samples)
    for fold, metrics in zip(folds, result.folds, strict=True):
        rows = fold.validation[fold.validation != 7]
        for name, labels in samples.targets.items():
            known = rows[labels[rows] >= 0]
            right = result.probabilities[name][known].argmax(axis=1) == labels[known]
            assert metrics[f"accuracy/{name}"] == pytest.approx(right.mean(), abs=1e-6)
    assert result.mean["accuracy/colour"] == pytest.approx(
        np.mean([metrics["accuracy/colour"] for metrics in result.folds])
    )
    assert result.std["loss"] == pytest.approx(
        np.std([metrics["loss"] for metrics in result.folds], ddof=1)
    )


def test_an_unreadable_picture_is_reported_once_and_has_no_prediction(
    crossed: tuple[CrossValidation, Samples, Path],
) -> None:
    result, _, _ = crossed
    assert [picture.image.name for picture in result.rejected] == ["7.png"]
    for name, count in (("colour", 4), ("side.of it", 2)):
        probabilities = result.probabilities[name]
        assert probabilities.shape == (60, count)
        assert np.flatnonzero(np.isnan(probabilities).any(axis=1)).tolist() == [7]
        sums = np.delete(probabilities, 7, axis=0).sum(axis=1)
        np.testing.assert_allclose(sums, 1.0, rtol=1e-5)


def test_finished_folds_are_not_trained_again(
    crossed: tuple[CrossValidation, Samples, Path],
) -> None:
    result, samples, workdir = crossed
    files = [workdir / f"fold-{number}" / "last.ckpt" for number in range(3)]
    before = [file.stat().st_mtime_ns for file in files[:2]]
    files[2].unlink()  # as if the run had been interrupted in its first epoch
    again = cross_validate(samples, CONFIG, split(samples), workdir=workdir, seed=0)
    assert [file.stat().st_mtime_ns for file in files[:2]] == before
    assert again.folds == result.folds
    np.testing.assert_array_equal(again.probabilities["colour"], result.probabilities["colour"])


def test_overlapping_folds_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    samples = labelled([4, 4])
    first, second = split_folds(samples, 2, seed=0)
    leaking = Fold(np.arange(8), first.validation)
    with pytest.raises(ValueError, match=r"fold 1 does so with 4, such as row \d"):
        cross_validate(samples, CONFIG, [second, leaking], workdir=tmp_path, seed=0)
    with pytest.raises(ValueError, match="got 8 rows of which 4 are different"):
        cross_validate(samples, CONFIG, [first, first], workdir=tmp_path, seed=0)
    assert not list(tmp_path.iterdir())


def test_a_metric_that_some_folds_lack_is_summarised_over_the_others() -> None:
    mean, std = summarise([{"loss": 1.0, "accuracy/a": 0.5}, {"loss": 3.0}])
    assert mean == {"loss": 2.0, "accuracy/a": 0.5}
    assert std["loss"] == pytest.approx(math.sqrt(2))
    assert math.isnan(std["accuracy/a"])
