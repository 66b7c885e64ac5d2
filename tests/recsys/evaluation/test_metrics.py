"""Metrics against their definitions as loops, and the laws that they obey."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.arrays import Ints
from recsys.evaluation.metrics import (
    METRICS,
    all_metrics,
    coverage_at_k,
    find_hits,
    ndcg_at_k,
    recall_at_k,
)

N_ITEMS = 12

Case = tuple[Ints, list[Ints], int]  # ranked rows, relevant items, k


def loop_metric(name: str, ranked: Ints, relevant: Ints, k: int) -> float:
    """One user's metric, straight from its definition."""
    wanted = set(relevant.tolist())
    hits = [item in wanted for item in ranked[:k]]
    if name == "recall":
        return sum(hits) / len(wanted)
    if name == "hit_rate":
        return float(any(hits))
    if name == "precision":
        return sum(hits) / k
    if name == "mrr":
        return next((1 / rank for rank, hit in enumerate(hits, start=1) if hit), 0.0)
    if name == "average_precision":
        total = sum(sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit)
        return total / len(wanted)
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, start=1) if hit)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    return gain / ideal


@st.composite
def rankings(draw: st.DrawFn) -> Case:
    """Ranked rows (some short, some empty) with relevant items for a few users, and a k."""
    width = draw(st.integers(1, 8))
    n_users = draw(st.integers(1, 5))
    ranked, relevant = [], []
    for _ in range(n_users):
        items = draw(st.permutations(range(N_ITEMS)))[: draw(st.integers(0, width))]
        ranked.append(list(items) + [-1] * (width - len(items)))
        right = draw(st.sets(st.integers(0, N_ITEMS - 1), min_size=1))
        relevant.append(np.array(sorted(right), dtype=np.int64))
    return np.array(ranked, dtype=np.int64), relevant, draw(st.integers(1, width))


@given(case=rankings())
def test_metrics_do_not_depend_on_how_many_users_are_looked_at_at_once(case: Case) -> None:
    ranked, relevant, k = case
    hits = find_hits(ranked, relevant)
    for users_at_once in (1, 2, 10):
        found = all_metrics(ranked, relevant, [1, k], users_at_once=users_at_once)
        assert len(found) == len(METRICS) * len({1, k})
        for name, compute in METRICS.items():
            np.testing.assert_allclose(found[f"{name}@{k}"], compute(hits, k), atol=1e-14)


@pytest.mark.parametrize("name", METRICS)
@given(case=rankings())
def test_metric_equals_its_definition_as_a_loop(name: str, case: Case) -> None:
    ranked, relevant, k = case
    expected = [
        loop_metric(name, row, right, k) for row, right in zip(ranked, relevant, strict=True)
    ]
    np.testing.assert_allclose(METRICS[name](find_hits(ranked, relevant), k), expected, atol=1e-12)


@pytest.mark.parametrize("name", METRICS)
@given(case=rankings())
def test_metric_stays_between_zero_and_one(name: str, case: Case) -> None:
    ranked, relevant, k = case
    values = METRICS[name](find_hits(ranked, relevant), k)
    assert (values >= 0).all()
    assert (values <= 1).all()


@pytest.mark.parametrize("name", ["recall", "hit_rate", "mrr", "average_precision"])
@given(case=rankings())
def test_metric_never_falls_as_k_grows(name: str, case: Case) -> None:
    ranked, relevant, _ = case
    by_k = [METRICS[name](find_hits(ranked, relevant), k) for k in range(1, ranked.shape[1] + 1)]
    assert (np.diff(by_k, axis=0) >= -1e-12).all()


@pytest.mark.parametrize("name", METRICS)
@given(case=rankings(), seed=st.integers(0, 2**16))
def test_metric_does_not_depend_on_item_numbers_or_user_order(
    name: str, case: Case, seed: int
) -> None:
    ranked, relevant, k = case
    generator = np.random.default_rng(seed)
    renamed = generator.permutation(N_ITEMS)
    users = generator.permutation(len(ranked))
    other = np.where(ranked >= 0, renamed[ranked], -1)[users]
    values = METRICS[name](find_hits(other, [renamed[relevant[user]] for user in users]), k)
    np.testing.assert_allclose(values, METRICS[name](find_hits(ranked, relevant), k)[users])


@pytest.mark.parametrize("name", ["ndcg", "mrr", "average_precision"])
@given(case=rankings())
def test_moving_a_relevant_item_up_never_lowers_the_metric(name: str, case: Case) -> None:
    ranked, relevant, k = case
    hits_first = np.array(
        [
            [*(item for item in row if item in right), *(item for item in row if item not in right)]
            for row, right in zip(ranked, relevant, strict=True)
        ]
    )
    better, worse = (
        METRICS[name](find_hits(hits_first, relevant), k),
        METRICS[name](find_hits(ranked, relevant), k),
    )
    assert (better >= worse - 1e-12).all()


def test_ndcg_of_a_hand_computed_ranking() -> None:
    ranked = np.array([[7, 3, 9, 1]])
    # Hits at ranks 2 and 4 of three relevant items, as trec_eval's ndcg_cut_4 counts them.
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_k(find_hits(ranked, [np.array([1, 3, 5])]), 4) == pytest.approx([gain / ideal])


@pytest.mark.parametrize("name", METRICS)
def test_user_without_an_answer_scores_zero(name: str) -> None:
    ranked = np.array([[-1, -1], [4, -1]])
    assert METRICS[name](find_hits(ranked, [np.array([0]), np.array([4])]), 2)[0] == 0


@pytest.mark.parametrize("name", METRICS)
def test_no_users_give_no_numbers(name: str) -> None:
    assert METRICS[name](find_hits(np.empty((0, 3), dtype=np.int64), []), 2).shape == (0,)


def test_coverage_counts_each_shown_candidate_once() -> None:
    candidates = np.array([True, True, True, True, False])
    ranked = np.array([[0, 1, 3], [1, 0, -1]])
    assert coverage_at_k(ranked, candidates, 2) == 0.5
    assert coverage_at_k(ranked, candidates, 3) == 0.75


def test_user_without_relevant_items_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"relevant must not be empty, got none for 1 users"):
        recall_at_k(
            find_hits(np.array([[0], [1]]), [np.array([0]), np.array([], dtype=np.int64)]), 1
        )


@pytest.mark.parametrize("k", [0, 3])
def test_k_out_of_range_is_an_error(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be between 1 and 2 .*, got {k}"):
        recall_at_k(find_hits(np.array([[0, 1]]), [np.array([0])]), k)


def test_numbers_of_users_that_disagree_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"one entry per ranked user \(1\), got 2"):
        recall_at_k(find_hits(np.array([[0, 1]]), [np.array([0]), np.array([1])]), 1)


def test_repeated_item_in_a_ranking_is_an_error() -> None:
    with pytest.raises(ValueError, match="ranked must name each item once"):
        recall_at_k(find_hits(np.array([[5, 5]]), [np.array([5])]), 2)


def test_repeated_relevant_item_is_an_error() -> None:
    with pytest.raises(ValueError, match="relevant must name each item once"):
        recall_at_k(find_hits(np.array([[5, 6]]), [np.array([5, 5])]), 2)


def test_negative_item_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="item rows must be >= 0"):
        recall_at_k(find_hits(np.array([[-2, 6]]), [np.array([5])]), 2)


def test_ranking_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"ranked must have shape \(U, K\), got \(3,\)"):
        recall_at_k(find_hits(np.array([1, 2, 3]), [np.array([5])]), 1)


def test_coverage_without_candidates_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one true row"):
        coverage_at_k(np.array([[0]]), np.array([False]), 1)
