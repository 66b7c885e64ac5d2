"""Full rankings against sorting as a loop, and evaluation of systems with a known answer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from recsys.data.arrays import Floats, Ints
from recsys.evaluation.protocol import (
    compare,
    evaluate,
    rank_queries,
    rank_scores,
    score_ranking,
)
from recsys.evaluation.queries import Queries

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


def planted_queries(n_users: int = 40, n_items: int = 30) -> Queries:
    """User u takes items u % 10 and 10 + u % 10; items from 20 on cannot be ranked."""
    users = np.arange(n_users)
    return Queries(
        scope="all",
        now_us=0,
        user_rows=users * 3,
        relevant=[np.array([u % 10, 10 + u % 10]) for u in users],
        excluded=[NONE] * n_users,
        candidates=np.arange(n_items) < 20,
    )


def oracle_scorer(user_rows: Ints) -> Floats:
    scores = np.zeros((len(user_rows), 30), dtype=np.float32)
    users = user_rows // 3
    scores[np.arange(len(users)), users % 10] = 2.0
    scores[np.arange(len(users)), 10 + users % 10] = 1.0
    scores[:, 20:] = 9.0  # would win if it were ranked
    return scores


def silent_scorer(user_rows: Ints) -> Floats:
    return np.zeros((len(user_rows), 30), dtype=np.float32)


def test_system_that_knows_the_answers_scores_one_everywhere() -> None:
    result = evaluate("oracle", oracle_scorer, planted_queries(), ks=(2, 5))
    assert result.estimates["ndcg@2"] == (1.0, 1.0, 1.0)
    assert result.estimates["recall@5"].mean == 1.0
    assert result.estimates["precision@5"].mean == pytest.approx(0.4)
    assert result.coverage == {2: 1.0, 5: 1.0}


def test_system_that_says_nothing_is_as_good_as_chance() -> None:
    queries = planted_queries()
    recalls = [
        evaluate("silent", silent_scorer, queries, ks=(4,), seed=seed).estimates["recall@4"].mean
        for seed in range(50)
    ]
    assert np.mean(recalls) == pytest.approx(4 / 20, abs=0.02)


def test_batch_size_does_not_change_the_result() -> None:
    queries = planted_queries()
    whole = evaluate("oracle", oracle_scorer, queries)
    pieces = evaluate("oracle", oracle_scorer, queries, batch_size=7)
    np.testing.assert_array_equal(whole.ranked, pieces.ranked)
    assert whole.estimates == pieces.estimates


def test_users_of_several_sets_of_queries_are_scored_once() -> None:
    some, all_of_them = planted_queries(n_users=11), planted_queries()
    asked: list[int] = []

    def scorer(user_rows: Ints) -> Floats:
        asked.extend(user_rows)
        return oracle_scorer(user_rows)

    found = rank_queries(scorer, [some, all_of_them], ks=(3,), batch_size=7)
    assert sorted(asked) == sorted(all_of_them.user_rows)
    for queries, ranked in zip((some, all_of_them), found, strict=True):
        np.testing.assert_array_equal(
            ranked, evaluate("oracle", oracle_scorer, queries, ks=(3,)).ranked
        )


def test_progress_is_reported_after_every_batch() -> None:
    steps = []
    evaluate(
        "oracle",
        oracle_scorer,
        planted_queries(),
        batch_size=16,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(16, 40), (32, 40), (40, 40)]


def test_comparison_is_positive_for_the_better_system() -> None:
    queries = planted_queries()
    ours = evaluate("oracle", oracle_scorer, queries)
    theirs = evaluate("silent", silent_scorer, queries)
    gain = compare(ours, theirs, "ndcg@10")
    assert gain.low > 0
    assert gain.mean == pytest.approx(
        ours.estimates["ndcg@10"].mean - theirs.estimates["ndcg@10"].mean
    )


def test_comparison_of_different_queries_is_an_error() -> None:
    ours = evaluate("oracle", oracle_scorer, planted_queries())
    theirs = evaluate("oracle", oracle_scorer, planted_queries(n_users=39))
    with pytest.raises(ValueError, match="theirs must answer the queries of ours"):
        compare(ours, theirs, "ndcg@10")


def test_comparison_by_an_unknown_metric_is_an_error() -> None:
    result = evaluate("oracle", oracle_scorer, planted_queries())
    with pytest.raises(ValueError, match=r"metric must be one of .*, got 'ndcg'"):
        compare(result, result, "ndcg")


def test_ranking_made_elsewhere_scores_like_the_same_ranking_made_here() -> None:
    queries = planted_queries()
    made = evaluate("oracle", oracle_scorer, queries)
    assert score_ranking("oracle", made.ranked, queries).estimates == made.estimates


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


def test_evaluation_without_a_cut_off_or_with_an_empty_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="ks must be one or more numbers"):
        evaluate("oracle", oracle_scorer, planted_queries(), ks=())
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate("oracle", oracle_scorer, planted_queries(), batch_size=0)
