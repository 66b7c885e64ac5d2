"""Classes from a few pictures, with a tower that embeds a picture as its mean colour."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.planted import plain_picture
from tests.vision.planted_towers import mean_colour_tower
from vision.dataset import Samples
from vision.errors import CheckpointError, ImageError, TrainingError
from vision.labelling.prototypes import (
    DEFAULT_TEMPERATURE,
    Prototypes,
    build_prototypes,
    fit_temperature,
    leave_one_out,
)
from vision.tower import VisionTower

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def build_tower(scale: float = 1.0) -> VisionTower:
    classes = {"known before": ["a", "b"]}
    return mean_colour_tower(classes, {"project.0.weight": scale * torch.eye(3)})


def paint(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """Return a picture of nearly that colour."""
    near = np.array(colour) + np.random.default_rng(seed).integers(-20, 21, 3)
    red, green, blue = (int(value) for value in near)
    return plain_picture((red, green, blue))


@pytest.fixture
def make(tmp_path: Path) -> Callable[[int], Samples]:
    """Return a function that makes samples with this number of pictures of every colour."""

    def make_samples(shots: int) -> Samples:
        labels = np.arange(3 * shots) % 3
        for row, label in enumerate(labels):
            paint(list(COLOURS.values())[label], row).save(tmp_path / f"{row}.png")
        images = [Path(f"{row}.png") for row in range(len(labels))]
        return Samples(images, {"colour": labels}, {"colour": list(COLOURS)}, root=tmp_path)

    return make_samples


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    return build_tower()


def test_a_prototype_is_the_mean_direction_of_its_pictures(
    tower: VisionTower, make: Callable[[int], Samples]
) -> None:
    samples = make(4)
    prototypes = build_prototypes(tower, samples, "colour")
    assert prototypes.shots == (4, 4, 4)
    assert samples.root is not None
    for label, vector in enumerate(prototypes.vectors):
        own = samples.take(np.flatnonzero(samples.targets["colour"] == label))
        mean = tower.embed([samples.root / image for image in own.images]).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-5)


def test_the_nearest_prototype_is_predicted(
    tower: VisionTower, make: Callable[[int], Samples]
) -> None:
    prototypes = build_prototypes(tower, make(3), "colour")
    probabilities = prototypes.predict_proba([paint(of, 100) for of in COLOURS.values()])
    assert probabilities.dtype == np.float32
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert prototypes.predict_proba([]).shape == (0, 3)
    assert prototypes.predict([paint(COLOURS["blue"], 100)]).tolist() == ["blue"]


def test_one_picture_is_enough_for_a_new_class(
    tower: VisionTower, make: Callable[[int], Samples]
) -> None:
    before = build_prototypes(tower, make(3), "colour")
    after = before.with_class("sand", [paint((200, 200, 20), 50)])
    assert after.classes == (*COLOURS, "sand")
    assert after.shots == (3, 3, 3, 1)
    np.testing.assert_array_equal(after.vectors[:3], before.vectors)
    asked = [paint(of, 100) for of in (*COLOURS.values(), (200, 200, 20))]
    assert after.predict_proba(asked).argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert before.predict_proba(asked).shape == (4, 3), "the old prototypes are unchanged"


def test_leave_one_out_compares_a_picture_with_a_mean_without_it() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(9, 4)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = np.arange(9) % 3
    sums = np.stack([embeddings[labels == label].sum(axis=0) for label in range(3)])
    got = leave_one_out(embeddings, labels, sums)
    for row in range(9):
        for label in range(3):
            others = [i for i in range(9) if labels[i] == label and i != row]
            mean = embeddings[others].mean(axis=0)
            wanted = embeddings[row] @ mean / np.linalg.norm(mean)
            assert got[row, label] == pytest.approx(wanted, abs=1e-5)


def test_the_fitted_temperature_minimises_the_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    cosines = 0.2 * rng.normal(size=(400, 5)).astype(np.float32)
    cosines[np.arange(400), labels] += 0.3

    def cost(temperature: float) -> float:
        exp = np.exp(cosines / temperature)
        return -float(np.log(exp[np.arange(400), labels] / exp.sum(axis=1)).mean())

    best = fit_temperature(cosines, labels)
    assert 0.02 < best < 0.9, "not at an end of the range"
    assert cost(best) < min(cost(0.97 * best), cost(1.03 * best))


def test_classes_of_one_picture_get_the_default_temperature(
    tower: VisionTower, make: Callable[[int], Samples]
) -> None:
    assert build_prototypes(tower, make(1), "colour").temperature == DEFAULT_TEMPERATURE
    assert build_prototypes(tower, make(2), "colour").temperature != DEFAULT_TEMPERATURE


def test_unreadable_and_unlabelled_pictures_are_left_out(
    tower: VisionTower, make: Callable[[int], Samples]
) -> None:
    samples = make(3)
    assert samples.root is not None
    (samples.root / "0.png").write_bytes(b"damaged")
    samples.targets["colour"][1] = -1
    prototypes = build_prototypes(tower, samples, "colour")
    assert prototypes.shots == (2, 2, 3)
    assert prototypes.predict_proba([paint(COLOURS["red"], 100)]).argmax() == 0


def test_saved_prototypes_are_loaded_unchanged(
    tower: VisionTower, make: Callable[[int], Samples], tmp_path: Path
) -> None:
    saved = build_prototypes(tower, make(2), "colour").with_class("sand", [paint((9, 9, 9), 0)])
    saved.save(tmp_path / "new" / "folder")
    loaded = Prototypes.load(tmp_path / "new" / "folder", tower)
    asked = [paint(of, 100) for of in COLOURS.values()]
    np.testing.assert_array_equal(loaded.predict_proba(asked), saved.predict_proba(asked))
    assert (loaded.target, loaded.classes, loaded.shots) == ("colour", saved.classes, saved.shots)


def test_missing_damaged_and_foreign_folders_are_refused(
    tower: VisionTower, make: Callable[[int], Samples], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="does not hold prototypes"):
        Prototypes.load(tmp_path / "nothing", tower)
    folder = tmp_path / "saved"
    build_prototypes(tower, make(1), "colour").save(folder)
    with pytest.raises(CheckpointError, match="built with another tower; build them again"):
        Prototypes.load(folder, build_tower(scale=1.001))
    config = json.loads((folder / "prototypes.json").read_text())
    (folder / "prototypes.json").write_text(json.dumps({**config, "format_version": 9}))
    with pytest.raises(CheckpointError, match="format_version must be 1, got 9"):
        Prototypes.load(folder, tower)
    (folder / "prototypes.json").write_text("{")
    with pytest.raises(CheckpointError, match="are damaged"):
        Prototypes.load(folder, tower)
    (folder / "prototypes.json").write_text(json.dumps(config))
    (folder / "prototypes.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="are damaged"):
        Prototypes.load(folder, tower)


def test_wrong_arguments_are_refused_by_name(
    tower: VisionTower, make: Callable[[int], Samples]
) -> None:
    samples = make(1)
    with pytest.raises(ValueError, match="target must be one of colour, got 'size'"):
        build_prototypes(tower, samples, "size")
    twice = Samples(samples.images, samples.targets, {"colour": ["red", "blue", "red"]})
    with pytest.raises(ValueError, match=r"must have different names, got \['red'\] twice"):
        build_prototypes(tower, twice, "colour")
    prototypes = build_prototypes(tower, samples, "colour")
    with pytest.raises(ValueError, match="must be new, got 'red', which is a class of colour"):
        prototypes.with_class("red", [paint((0, 0, 0), 0)])
    with pytest.raises(ValueError, match="images of 'sand' must be at least one picture"):
        prototypes.with_class("sand", [])
    with pytest.raises(ImageError, match="image 0"):
        prototypes.with_class("sand", [b"damaged"])
    assert samples.root is not None
    (samples.root / "2.png").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"needs a readable picture, got none of \['blue'\]"):
        build_prototypes(tower, samples, "colour")
