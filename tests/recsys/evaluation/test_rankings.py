"""Full rankings against sorting as a loop, and the area under the curve against scikit-learn."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from recsys.data.arrays import Floats, Ints
from recsys.evaluation.rankings import allowed_rows, area_under_curve, rank_scores

N_ITEMS = 9
TINY = float(np.float32(1e-45))  # the smallest float32 above 0


def loop_ranking(
    scores: Floats, excluded: set[int], candidates: NDArray[np.bool_], k: int, seed: int
) -> list[int]:
    """Sort one user's candidates by falling score, then by place in the permutation."""
    place = np.argsort(np.random.default_rng(seed).permutation(len(scores)))
    rows = [
        row
        for row in range(len(scores))
        if candidates[row] and row not in excluded and scores[row] != -np.inf
    ]
    rows.sort(key=lambda row: (-scores[row], place[row]))
    return (rows + [-1] * k)[:k]


@given(
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.just(N_ITEMS)),
        # Few distinct values make ties; the rest are the places where float order goes wrong.
        elements=st.one_of(
            st.sampled_from([0.0, -0.0, 1.0, -1.0, TINY, -TINY, -np.inf]),
            st.floats(-3, 3, width=32),
        ),
    ),
    candidates=hnp.arrays(np.bool_, N_ITEMS),
    excluded=st.sets(st.integers(0, N_ITEMS - 1)),
    k=st.integers(1, N_ITEMS + 3),
    seed=st.integers(0, 50),
)
def test_ranking_equals_a_sort_as_a_loop(
    scores: Floats, candidates: NDArray[np.bool_], excluded: set[int], k: int, seed: int
) -> None:
    rows = np.array(sorted(excluded), dtype=np.int64)
    ranked = rank_scores(
        scores, excluded=[rows] * len(scores), candidates=candidates, k=k, seed=seed
    )
    expected = [loop_ranking(row, excluded, candidates, k, seed) for row in scores]
    np.testing.assert_array_equal(ranked, expected)


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_any_two_scores_are_ranked_as_numbers_are(first: float, second: float) -> None:
    scores = np.array([[first, second]], dtype=np.float32)
    ranked = rank_scores(scores, excluded=[NONE], candidates=np.ones(2, dtype=bool), k=1)
    if first != second:
        assert ranked[0, 0] == int(second > first)


NONE = np.empty(0, dtype=np.int64)


def test_equal_scores_come_in_an_order_that_is_neither_the_catalogues_nor_the_batchs() -> None:
    scores = np.zeros((3, 1_000), dtype=np.float32)
    every = np.ones(1_000, dtype=bool)
    ranked = rank_scores(scores, excluded=[NONE] * 3, candidates=every, k=1_000)
    assert abs(np.corrcoef(ranked[0], np.arange(1_000))[0, 1]) < 0.1
    alone = rank_scores(scores[:1], excluded=[NONE], candidates=every, k=10)
    np.testing.assert_array_equal(ranked[2, :10], alone[0])
    other = rank_scores(scores[:1], excluded=[NONE], candidates=every, k=10, seed=1)
    assert not np.array_equal(alone, other)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_score_that_is_not_finite_is_an_error(bad: float) -> None:
    scores = np.array([[0.0, bad]], dtype=np.float32)
    with pytest.raises(ValueError, match="scores must be finite or minus infinity"):
        rank_scores(scores, excluded=[NONE], candidates=np.ones(2, dtype=bool), k=1)


def test_scores_of_another_shape_are_an_error() -> None:
    scores = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"scores must have shape \(1, 2\) .* got \(1, 3\)"):
        rank_scores(scores, excluded=[NONE], candidates=np.ones(2, dtype=bool), k=1)


def test_scores_of_another_type_are_an_error() -> None:
    doubles: Any = np.zeros((1, 2))
    with pytest.raises(ValueError, match="scores must be float32, got float64"):
        rank_scores(doubles, excluded=[NONE], candidates=np.ones(2, dtype=bool), k=1)


def test_k_below_one_is_an_error() -> None:
    scores = np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        rank_scores(scores, excluded=[NONE], candidates=np.ones(2, dtype=bool), k=0)


def test_best_items_side_by_side_are_all_found() -> None:
    scores = np.arange(5_000, dtype=np.float32)[None]
    ranked = rank_scores(scores, excluded=[NONE], candidates=np.ones(5_000, dtype=bool), k=70)
    np.testing.assert_array_equal(ranked[0], np.arange(5_000)[:-71:-1])


def test_a_long_list_of_ties_is_ranked_as_a_loop_would() -> None:
    generator = np.random.default_rng(2)
    for n_distinct in (1, 2, 30, 10_000):  # all items are tied, or half, or few, or hardly any
        scores = generator.integers(0, n_distinct, size=(4, 5_003)).astype(np.float32)
        candidates = generator.random(5_003) < 0.7
        ranked = rank_scores(scores, excluded=[NONE] * 4, candidates=candidates, k=20, seed=3)
        expected = [loop_ranking(row, set(), candidates, 20, 3) for row in scores]
        np.testing.assert_array_equal(ranked, expected)


def area(scores: Floats, right: Ints, n_allowed: int) -> float:
    return area_under_curve(scores, right, n_allowed)


@given(
    scores=hnp.arrays(np.float32, 8, elements=st.sampled_from([-np.inf, -1.0, 0.0, -0.0, 2.0])),
    right=st.sets(st.integers(0, 7), min_size=1, max_size=7),
)
def test_area_equals_that_of_scikit_learn(scores: Floats, right: set[int]) -> None:
    rows = np.array(sorted(right))
    truth = np.isin(np.arange(8), rows)
    expected = roc_auc_score(truth, np.where(np.isneginf(scores), -9.0, scores))
    assert area(scores, rows, 8) == pytest.approx(expected)


def test_items_that_are_not_ranked_are_not_in_the_area() -> None:
    scores = np.float32([[0.9, 0.8, 0.7, 0.6, 0.5]])
    candidates = np.array([False, True, True, True, True])
    (allowed,) = allowed_rows(scores, excluded=[np.array([1])], candidates=candidates)
    assert area(allowed, np.array([3]), 3) == pytest.approx(0.5)  # behind 2, before 4


def test_area_where_every_item_is_right_is_one_half() -> None:
    assert area(np.float32([3, 1]), np.array([0, 1]), 2) == 0.5
