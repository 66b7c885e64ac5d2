"""The pictures to label next are those that the tests made uncertain or far from the others."""

import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.planted import plain_picture
from tests.vision.planted_towers import mean_colour_tower
from vision.arrays import Doubles
from vision.labelling.selection import Pool, Strategy, entropy, k_centre, margin, select
from vision.tower import VisionTower

# Three clear pictures and two between two classes, of which the last is the less clear one.
COLOURS = [(255, 0, 0), (0, 255, 0), (240, 10, 0), (160, 100, 0), (125, 0, 130)]
STRATEGIES: list[Strategy] = ["entropy", "margin", "core_set", "random"]


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    """Return a tower that embeds the mean colour and predicts the strongest channel."""
    return mean_colour_tower(
        {"warm": ["yes", "no"], "colour": ["red", "green", "blue"]},
        {
            "project.0.weight": torch.eye(3),
            "heads.1.weight": 8 * torch.eye(3),
            "heads.1.bias": torch.zeros(3),
        },
    )


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{row}.png" for row in range(len(COLOURS))]
    for file, colour in zip(files, COLOURS, strict=True):
        plain_picture(colour).save(file)
    return files


def test_entropy_and_margin_are_their_definitions() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    rows[0] = [1, 0, 0, 0]
    for row, own, lead in zip(rows, entropy(rows), margin(rows), strict=True):
        assert own == pytest.approx(-sum(p * math.log(p) for p in row if p > 0))
        first, second = sorted(row, reverse=True)[:2]
        assert lead == pytest.approx(1 - (first - second))
    assert entropy(np.full((1, 4), 0.25))[0] == pytest.approx(math.log(4))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        margin(np.ones((3, 1)))


def loop_k_centre(embeddings: Doubles, k: int, covered: Doubles) -> list[int]:
    """Return the rows of the definition: each time the row whose nearest centre is farthest."""
    chosen: list[int] = []
    while len(chosen) < k:
        centres = [*covered, *embeddings[chosen]]
        best, farthest = -1, -1.0
        for row, own in enumerate(embeddings):
            if row in chosen:
                continue
            if centres:
                distance = min(float(np.linalg.norm(own - centre)) for centre in centres)
            else:
                distance = 1 / (1e-9 + float(np.linalg.norm(own - embeddings.mean(axis=0))))
            if distance > farthest:
                best, farthest = row, distance
        chosen.append(best)
    return chosen


@given(seed=st.integers(0, 1000), m=st.integers(0, 3), k=st.integers(1, 12))
def test_core_set_always_takes_the_row_farthest_from_all_centres(seed: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Some rows are equal, and no row may be chosen twice.
    embeddings, covered = rng.normal(size=(9, 3))[[*range(9), 0, 1, 2]], rng.normal(size=(m, 3))
    rows, distances = k_centre(embeddings, k, covered)
    assert rows.tolist() == loop_k_centre(embeddings, k, covered)
    assert len(set(rows.tolist())) == k
    assert (np.diff(distances) <= 0).all()
    assert np.isinf(distances[0]) == (m == 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_greedy_centres_reach_at_most_twice_as_far_as_the_best_ones(seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(9, 2))
    between = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)

    def reach(centres: tuple[int, ...]) -> float:
        return float(between[:, list(centres)].min(axis=1).max())

    best = min(reach(centres) for centres in itertools.combinations(range(9), 3))
    greedy = k_centre(embeddings, 3, np.zeros((0, 2))).rows
    assert reach(tuple(greedy.tolist())) <= 2 * best


@pytest.mark.parametrize("strategy", ["entropy", "margin"])
def test_unsure_pictures_come_first(
    tower: VisionTower, pool: list[Path], strategy: Strategy
) -> None:
    table = select(tower, Pool(pool), 4, strategy=strategy, seed=0).table
    assert table["image"].to_list()[:3] == [str(pool[row]) for row in (4, 3, 2)]
    assert table["predicted"].to_list()[:3] == ["blue", "red", "red"]
    assert table["score"].is_sorted(descending=True)
    assert table["rank"].to_list() == [1, 2, 3, 4]
    assert table.schema == {
        "rank": pl.Int64,
        "image": pl.String,
        "strategy": pl.String,
        "score": pl.Float64,
        "predicted": pl.String,
        "probability": pl.Float32,
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_table_has_the_prediction_of_the_tower(
    tower: VisionTower, pool: list[Path], strategy: Strategy
) -> None:
    table = select(tower, Pool(pool), 5, strategy=strategy, target="warm", seed=0).table
    files = [Path(image) for image in table["image"]]
    assert sorted(files) == pool
    probabilities = tower.predict_proba(files)["warm"]
    np.testing.assert_allclose(table["probability"], probabilities.max(axis=1), rtol=1e-6)
    assert table["predicted"].to_list() == [("yes", "no")[i] for i in probabilities.argmax(axis=1)]


def test_core_set_does_not_cover_labelled_pictures_again(
    tower: VisionTower, pool: list[Path]
) -> None:
    table = select(tower, Pool(pool[1:], labelled=pool[:1]), 2, strategy="core_set", seed=0).table
    assert table["image"].to_list() == [str(pool[1]), str(pool[4])]
    assert table["score"][0] == pytest.approx(math.sqrt(2))


def test_random_choices_depend_on_the_seed_only(tower: VisionTower, pool: list[Path]) -> None:
    drawn = [
        select(tower, Pool(pool), 5, strategy="random", seed=s).table["image"] for s in (0, 0, 1)
    ]
    assert drawn[0].to_list() == drawn[1].to_list()
    assert drawn[0].to_list() != drawn[2].to_list()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_unreadable_pictures_are_left_out_and_reported(
    tower: VisionTower, pool: list[Path], strategy: Strategy
) -> None:
    root = pool[0].parent
    names = [Path(file.name) for file in pool]
    pool[1].write_bytes(b"damaged")
    pool[0].write_bytes(b"damaged")
    damaged = Pool(names[1:], labelled=names[:1], root=root)
    table, rejected = select(tower, damaged, 3, strategy=strategy, seed=0)
    assert sorted(table["image"]) == ["2.png", "3.png", "4.png"]
    # Only core_set reads the labelled pictures.
    wanted = ["0.png", "1.png"] if strategy == "core_set" else ["1.png"]
    assert [image.name for image, _ in rejected] == wanted
    with pytest.raises(ValueError, match=r"at most 3 \(readable pictures in the pool\), got 4"):
        select(tower, damaged, 4, strategy=strategy, seed=0)


def test_wrong_arguments_are_refused_by_name(tower: VisionTower, pool: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"k must be at most 5 \(pictures in the pool\), got 6"):
        select(tower, Pool(pool), 6, strategy="entropy", seed=0)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        select(tower, Pool(pool), 0, strategy="entropy", seed=0)
    with pytest.raises(ValueError, match="target must be one of warm, colour, got 'size'"):
        select(tower, Pool(pool), 1, strategy="entropy", target="size", seed=0)
    with pytest.raises(ValueError, match="one of entropy, margin, random, core_set, got 'bald'"):
        select(tower, Pool(pool), 1, strategy="bald", seed=0)  # type: ignore[arg-type]
