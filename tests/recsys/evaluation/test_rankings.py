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
from recsys.evaluation.rankings import (
    TieOrder,
    allowed_rows,
    area_under_curve,
    best_rows,
    tie_numbers,
)

NONE = np.empty(0, dtype=np.int64)
N_ITEMS = 9
TINY = float(np.float32(1e-45))  # the smallest float32 above 0


def tie_orders(n_items: int, n_users: int, seed: int) -> list[TieOrder]:
    numbers, keys = tie_numbers(n_items, n_users, seed)
    return [TieOrder(numbers, key) for key in keys]


def loop_ranking(
    scores: Floats, excluded: set[int], candidates: NDArray[np.bool_], k: int, order: TieOrder
) -> list[int]:
    """Sort one user's candidates by falling score, then by place in the order of ties."""
    rows = [
        row
        for row in range(len(scores))
        if candidates[row] and row not in excluded and scores[row] != -np.inf
    ]
    rows.sort(key=lambda row: (-scores[row], order.places(np.array([row]))[0]))
    return rows[:k]


def rank(
    scores: Floats,
    k: int,
    *,
    excluded: Ints = NONE,
    candidates: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> list[list[int]]:
    """Rank for several users who exclude the same items."""
    n_users, n_items = scores.shape
    candidates = np.ones(n_items, dtype=bool) if candidates is None else candidates
    rows = allowed_rows(scores, excluded=[excluded] * n_users, candidates=candidates)
    orders = tie_orders(n_items, n_users, seed)
    return [best_rows(row, k, order).tolist() for row, order in zip(rows, orders, strict=True)]


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
    ranked = rank(scores, k, excluded=rows, candidates=candidates, seed=seed)
    orders = tie_orders(N_ITEMS, len(scores), seed)
    assert ranked == [
        loop_ranking(row, excluded, candidates, k, order)
        for row, order in zip(scores, orders, strict=True)
    ]


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_any_two_scores_are_ranked_as_numbers_are(first: float, second: float) -> None:
    scores = np.array([[first, second]], dtype=np.float32)
    if first != second:
        assert rank(scores, 1) == [[int(second > first)]]


def test_equal_scores_come_in_an_order_that_is_neither_the_catalogues_nor_other_users() -> None:
    scores = np.zeros((3, 1_000), dtype=np.float32)
    ranked = rank(scores, 1_000)
    for one in ranked:
        assert sorted(one) == list(range(1_000))
        assert abs(np.corrcoef(one, np.arange(1_000))[0, 1]) < 0.1
    assert ranked[0] != ranked[1] != ranked[2]
    assert [one[:10] for one in ranked] == rank(scores, 10)
    assert rank(scores, 10, seed=1) != rank(scores, 10)


def test_every_tied_item_is_shown_to_as_many_users() -> None:
    ranked = rank(np.zeros((20_000, 30), dtype=np.float32), 3)
    times = np.bincount(np.ravel(ranked), minlength=30)
    assert abs(times / 2_000 - 1).max() < 0.1
    tied = np.zeros((20_000, 30), dtype=np.float32)
    tied[:, ::4] = -1.0  # gaps between the tied items favour none of them
    times = np.bincount(np.ravel(rank(tied, 1)), minlength=30)[tied[0] == 0]
    assert abs(times / (20_000 / 22) - 1).max() < 0.15
    many = rank(np.zeros((20_000, 100), dtype=np.float32), 1)
    assert all(len(one) == 1 for one in many)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_score_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="scores must be finite or minus infinity"):
        rank(np.array([[0.0, bad]], dtype=np.float32), 1)


def test_scores_of_another_shape_are_an_error() -> None:
    scores = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"scores must have shape \(1, 2\) .* got \(1, 3\)"):
        rank(scores, 1, candidates=np.ones(2, dtype=bool))


def test_scores_of_another_type_are_an_error() -> None:
    doubles: Any = np.zeros((1, 2))
    with pytest.raises(ValueError, match="scores must be float32, got float64"):
        rank(doubles, 1)


def test_best_items_side_by_side_are_all_found() -> None:
    scores = np.arange(5_000, dtype=np.float32)[None]
    assert rank(scores, 70) == [list(range(4_999, 4_929, -1))]


def test_a_long_list_of_ties_is_ranked_as_a_loop_would() -> None:
    generator = np.random.default_rng(2)
    for n_distinct in (1, 2, 30, 10_000):  # all items are tied, or half, or few, or hardly any
        scores = generator.integers(0, n_distinct, size=(4, 5_004)).astype(np.float32)
        candidates = generator.random(5_004) < 0.7
        assert rank(scores, 20, candidates=candidates, seed=3) == [
            loop_ranking(row, set(), candidates, 20, order)
            for row, order in zip(scores, tie_orders(5_004, 4, 3), strict=True)
        ]


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
