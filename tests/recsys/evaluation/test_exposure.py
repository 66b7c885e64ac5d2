"""What systems show, against the definitions as loops."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.arrays import Ints
from recsys.evaluation.exposure import (
    USERS_AT_ONCE,
    diversity,
    gap,
    gini,
    mean_of,
    means_of,
    novelty,
    popularity,
    popularity_percentiles,
    shares,
)

N_ITEMS = 7
BUYERS = np.array([0.0, 1, 2, 2, 4, 8, 0])
EVERY = np.ones(N_ITEMS, dtype=bool)


@st.composite
def rankings(draw: st.DrawFn) -> Ints:
    rows = draw(st.lists(st.lists(st.integers(0, 6), unique=True, max_size=5), min_size=1))
    return np.array([[*row, *[-1] * (5 - len(row))] for row in rows])


@given(ranked=rankings(), k=st.integers(1, 5))
def test_novelty_is_the_mean_self_information_of_what_is_shown(ranked: Ints, k: int) -> None:
    found = novelty(ranked, BUYERS, 8, k)
    for row, got in zip(ranked[:, :k].tolist(), found, strict=True):
        bits = [-math.log2(max(BUYERS[item], 1) / 8) for item in row if item >= 0]
        assert np.isnan(got) if not bits else got == pytest.approx(sum(bits) / len(bits))


def test_an_item_that_half_of_the_users_took_tells_one_bit() -> None:
    assert novelty(np.array([[4]]), BUYERS, 8, 1) == pytest.approx([1.0])


@given(ranked=rankings(), k=st.integers(1, 5))
def test_diversity_is_one_minus_the_mean_cosine_of_the_pairs(ranked: Ints, k: int) -> None:
    embeddings = np.random.default_rng(0).normal(size=(N_ITEMS, 3)).astype(np.float32)
    embeddings[2] = 0.0  # an item without an embedding
    found = diversity(ranked, embeddings, k)
    for row, got in zip(ranked[:, :k].tolist(), found, strict=True):
        vectors = [embeddings[item] for item in row if item >= 0 and item != 2]
        cosines = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors, 2)
        ]
        assert (
            np.isnan(got) if not cosines else got == pytest.approx(1 - np.mean(cosines), abs=1e-6)
        )


def test_diversity_of_equal_items_is_zero_and_of_orthogonal_ones_is_one() -> None:
    embeddings = np.float32([[2, 0], [1, 0], [0, 3]])
    found = diversity(np.array([[0, 1], [0, 2]]), embeddings, 2)
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)


def test_blocks_of_users_do_not_change_the_diversity() -> None:
    generator = np.random.default_rng(1)
    ranked = generator.permuted(np.tile(np.arange(N_ITEMS), (USERS_AT_ONCE + 5, 1)), axis=1)
    embeddings = generator.normal(size=(N_ITEMS, 3)).astype(np.float32)
    whole = diversity(ranked, embeddings, 3)
    np.testing.assert_allclose(diversity(ranked[-9:], embeddings, 3), whole[-9:])


def test_percentiles_are_the_share_of_less_popular_candidates_and_half_of_the_ties() -> None:
    candidates = np.array([True, True, True, True, True, False, False])
    found = popularity_percentiles(BUYERS, candidates)
    for item in range(N_ITEMS):
        pool = BUYERS[candidates]
        expected = np.mean(pool < BUYERS[item]) + np.mean(pool == BUYERS[item]) / 2
        assert found[item] == pytest.approx(expected)


def test_popularity_of_chance_is_one_half() -> None:
    percentiles = popularity_percentiles(BUYERS, EVERY)
    ranked = np.random.default_rng(3).permuted(np.tile(np.arange(N_ITEMS), (4_000, 1)), axis=1)
    assert popularity(ranked, percentiles, 3).mean() == pytest.approx(0.5, abs=0.01)


@given(ranked=rankings(), k=st.integers(1, 5))
def test_gini_is_half_the_mean_difference_over_the_mean(ranked: Ints, k: int) -> None:
    times = [(ranked[:, :k] == item).sum() for item in range(N_ITEMS)]
    differences = np.mean([abs(a - b) for a in times for b in times])
    expected = differences / 2 / np.mean(times) if sum(times) else 0.0
    assert gini(ranked, EVERY, k) == pytest.approx(expected)


def test_gini_is_zero_for_equal_exposure_and_near_one_for_one_item() -> None:
    assert gini(np.arange(N_ITEMS)[:, None], EVERY, 1) == 0
    assert gini(np.zeros((5, 1), dtype=np.int64), EVERY, 1) == pytest.approx(1 - 1 / N_ITEMS)


def test_shares_add_up_to_one_and_pads_do_not_count() -> None:
    labels = ["red", "red", "blue", "blue", "blue", "green", "red"]
    found = shares(np.array([[0, 2, -1], [1, 5, -1]]), labels, ["blue", "green", "red"])
    assert found == {"blue": 0.25, "green": 0.25, "red": 0.5}
    assert shares(np.array([-1]), labels, ["blue", "green", "red"])["red"] == 0


def test_the_mean_is_over_the_users_who_have_a_number() -> None:
    found = mean_of(np.array([1.0, np.nan, 2.0]))
    assert found is not None
    assert found.mean == 1.5
    assert mean_of(np.array([np.nan])) is None


def test_means_of_several_columns_are_those_of_each() -> None:
    columns = [np.random.default_rng(4).random(50) for _ in range(3)]
    columns[1][::7] = np.nan
    columns.append(np.full(50, np.nan))
    for got, values in zip(means_of(columns), columns, strict=True):
        expected = mean_of(values)
        assert (got is None) == (expected is None)
        assert got is None or got == pytest.approx(expected)


@given(
    shown=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
    taken=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
)
def test_the_gap_is_the_share_that_would_have_to_move(shown: list[int], taken: list[int]) -> None:
    parts = [
        {name: one / sum(counts) for name, one in zip("abc", counts, strict=True)}
        for counts in (shown, taken)
    ]
    found = gap(*parts)
    moved = sum(max(0.0, parts[0][name] - parts[1][name]) for name in "abc")
    assert found == pytest.approx(moved)
    assert found == pytest.approx(gap(*reversed(parts)))
    assert 0 <= found <= 1
    assert gap(parts[0], parts[0]) == 0
