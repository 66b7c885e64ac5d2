"""A tower labels the pictures it is confident about, along whole paths, with a limit per class."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.planted import plain_picture
from tests.vision.planted_towers import mean_colour_tower
from vision.dataset import UNKNOWN, Samples
from vision.hierarchy import find_category_paths, reconcile_levels
from vision.labelling.pseudo_labels import combine, pseudo_label, sure_labels, surest
from vision.tower import VisionTower

CLASSES = {
    "level 1": ["cold", "warm"],
    "level 2": ["warm > red", "warm > sand", "cold > blue"],
    "finish": ["matt", "gloss"],
}
# A clear red, a less clear red, a colour between red and sand, and a clear blue.
COLOURS = [(250, 0, 0), (220, 20, 0), (200, 100, 0), (0, 0, 250)]


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    """Return a tower that separates warm from cold by red and blue, and red from sand by green."""
    weights = {
        "heads.0.weight": [[0, 0, 9], [9, 0, 0]],
        "heads.0.bias": [0, 0],
        "heads.1.weight": [[9, -9, 0], [9, 9, -9], [0, 0, 9]],
        "heads.1.bias": [5, -3, 0],
        "heads.2.weight": [[0, 0, 0], [0, 0, 0]],
        "heads.2.bias": [0, 0],
    }
    return mean_colour_tower(CLASSES, {name: torch.tensor(w) for name, w in weights.items()})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row, colour in enumerate(COLOURS):
        plain_picture(colour).save(tmp_path / f"{row}.png")
    return tmp_path


NAMES = [Path(f"{row}.png") for row in range(4)]


def test_only_confident_predictions_become_labels(tower: VisionTower, folder: Path) -> None:
    got = pseudo_label(tower, NAMES, target="level 2", root=folder)
    assert got.samples.images == [NAMES[0], NAMES[1], NAMES[3]]
    assert got.samples.root == folder
    assert got.samples.targets["level 2"].tolist() == [0, 0, 2]
    assert got.samples.targets["level 1"].tolist() == [1, 1, 0]
    assert (got.probabilities >= 0.9).all()
    assert got.rejected == ()


def test_unconfident_targets_stay_unknown(tower: VisionTower, folder: Path) -> None:
    got = pseudo_label(tower, NAMES, target="level 1", root=folder).samples
    assert got.images == NAMES
    assert got.targets["level 2"].tolist() == [0, 0, UNKNOWN, 2], "warm, but red or sand?"
    assert set(got.targets["finish"].tolist()) == {UNKNOWN}


def test_a_class_gets_at_most_per_class_pictures(tower: VisionTower, folder: Path) -> None:
    got = pseudo_label(tower, NAMES, target="level 1", per_class=1, root=folder)
    assert got.samples.images == [NAMES[0], NAMES[3]], "the clearest warm picture and the cold one"


def test_unreadable_pictures_are_left_out_and_reported(tower: VisionTower, folder: Path) -> None:
    (folder / "0.png").write_bytes(b"damaged")
    got = pseudo_label(tower, NAMES, target="level 2", root=folder)
    assert got.samples.images == [NAMES[1], NAMES[3]]
    assert [image for image, _ in got.rejected] == [NAMES[0]]


@given(seed=st.integers(0, 10_000), confidence=st.floats(0.05, 1.0))
def test_coarser_levels_of_a_label_are_known_and_agree_with_it(
    seed: int, confidence: float
) -> None:
    rng = np.random.default_rng(seed)
    heads = {
        name: rng.dirichlet(np.full(len(names), 0.4), 8).astype(np.float32)
        for name, names in CLASSES.items()
    }
    (path,) = paths = find_category_paths(CLASSES)
    probabilities = reconcile_levels(heads, paths)
    labels = sure_labels(probabilities, paths, confidence)
    known = labels["level 2"] != UNKNOWN
    parents = path.parents[0][labels["level 2"][known]]
    # Rounding may leave a class slightly less probable than its only subclass.
    close = probabilities["level 1"][known, parents] < confidence * (1 + 1e-6)
    assert ((labels["level 1"][known] == parents) | close).all()
    for row, label in enumerate(labels["finish"]):
        own = heads["finish"][row]
        assert label == (own.argmax() if own.max() >= confidence else UNKNOWN)


@given(seed=st.integers(0, 10_000), per_class=st.none() | st.integers(1, 5))
def test_the_most_probable_rows_of_each_class_are_taken(seed: int, per_class: int | None) -> None:
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(-1, 3, 20), rng.permutation(20) / 20
    wanted = []
    for label in range(3):
        rows = [row for row in range(20) if labels[row] == label]
        rows.sort(key=lambda row: -probabilities[row])
        wanted += rows[:per_class]
    assert surest(labels, probabilities, per_class).tolist() == sorted(wanted)


def make(images: list[str], labels: list[int], root: Path | None) -> Samples:
    targets = {"colour": np.array(labels, dtype=np.int64)}
    return Samples([Path(image) for image in images], targets, {"colour": ["a", "b"]}, root=root)


def test_labels_from_people_come_first_and_replace_pseudo_labels(tmp_path: Path) -> None:
    labelled, pseudo = make(["x", "y"], [0, -1], tmp_path), make(["z", "x"], [1, 1], tmp_path)
    both = combine(labelled, pseudo)
    assert both.images == [Path("x"), Path("y"), Path("z")]
    assert both.targets["colour"].tolist() == [0, -1, 1]
    assert both.root == tmp_path


def test_two_roots_become_the_closest_folder_that_contains_both(tmp_path: Path) -> None:
    labelled = make(["x"], [0], tmp_path / "shop" / "labelled")
    both = combine(labelled, make(["z", "../labelled/x"], [1, 1], tmp_path / "shop" / "pool"))
    assert both.root == tmp_path / "shop"
    assert both.images == [Path("labelled/x"), Path("pool/z")]
    assert combine(make(["x"], [0], None), make(["z"], [1], None)).root is None


@pytest.mark.parametrize(
    ("pool", "unlabelled"), [("labelled", "more.png"), ("pool", "labelled/more.png")]
)
def test_unlabelled_pictures_and_the_reader_are_kept(
    tmp_path: Path, pool: str, unlabelled: str
) -> None:
    def read(*args: Any) -> Any:
        raise AssertionError("combining reads no picture")

    labelled = replace(
        make(["x"], [0], tmp_path / "labelled"), unlabelled=(Path("more.png"),), read=read
    )
    both = combine(labelled, make(["z"], [1], tmp_path / pool))
    assert list(both.unlabelled) == [Path(unlabelled)]
    assert both.read is read


def test_samples_with_other_classes_or_without_a_root_are_refused(tmp_path: Path) -> None:
    labelled = make(["x"], [0], tmp_path)
    with pytest.raises(ValueError, match=r"must both have a root or neither, got .* and None"):
        combine(labelled, make(["z"], [1], None))
    other = Samples([], {"size": np.zeros(0, np.int64)}, {"size": ["s"]}, root=tmp_path)
    with pytest.raises(ValueError, match=r"targets and classes of labelled, got \['size'\]"):
        combine(labelled, other)


def test_wrong_arguments_are_refused_by_name(tower: VisionTower) -> None:
    with pytest.raises(ValueError, match="one of level 1, level 2, finish, got 'size'"):
        pseudo_label(tower, [], target="size")
    with pytest.raises(ValueError, match="above 0 and at most 1, got 90"):
        pseudo_label(tower, [], target="finish", confidence=90)
    with pytest.raises(ValueError, match="per_class must be at least 1 or None, got 0"):
        pseudo_label(tower, [], target="finish", per_class=0)
