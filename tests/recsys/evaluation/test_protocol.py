"""Evaluation of systems with a known answer."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.data.arrays import Floats, Ints
from recsys.evaluation.protocol import compare, evaluate, rank_queries, score_ranking
from recsys.evaluation.queries import Queries

NONE = np.empty(0, dtype=np.int64)


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


def test_a_system_that_says_nothing_is_as_good_as_chance_for_one_seed_and_few_candidates() -> None:
    users = np.arange(2_000)
    queries = Queries(
        scope="cold",
        now_us=0,
        user_rows=users,
        relevant=[np.array([7])] * 2_000,  # everybody wants one item, which a tie may favour
        excluded=[NONE] * 2_000,
        candidates=np.isin(np.arange(30), [2, 3, 7, 20]),
    )
    found = evaluate("silent", silent_scorer, queries, ks=(1,)).estimates["recall@1"]
    assert found.low < 1 / 4 < found.high


def test_a_users_ties_are_in_the_same_order_whoever_else_is_asked() -> None:
    every = planted_queries()
    some = replace(
        every,
        user_rows=every.user_rows[[5, 9]],
        **{
            name: [getattr(every, name)[place] for place in (5, 9)]
            for name in ("relevant", "excluded")
        },
    )
    np.testing.assert_array_equal(
        evaluate("silent", silent_scorer, some).ranked,
        evaluate("silent", silent_scorer, every).ranked[[5, 9]],
    )


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
    for queries, one in zip((some, all_of_them), found, strict=True):
        np.testing.assert_array_equal(
            one.rows, evaluate("oracle", oracle_scorer, queries, ks=(3,)).ranked
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
    again = score_ranking("oracle", made.ranked, queries, areas=made.per_user["auc"])
    assert again.estimates == made.estimates
    without = score_ranking("oracle", made.ranked, queries).estimates
    assert set(made.estimates) - set(without) == {"auc", "group_auc"}


def test_group_auc_counts_a_user_as_often_as_they_have_answers() -> None:
    queries = Queries(
        scope="all",
        now_us=0,
        user_rows=np.arange(2),
        relevant=[np.array([0]), np.array([0, 1, 2])],
        excluded=[NONE] * 2,
        candidates=np.ones(5, dtype=bool),
    )

    def scorer(user_rows: Ints) -> Floats:
        return np.tile(np.float32([1, 2, 3, 0, 0]), (len(user_rows), 1))

    found = evaluate("rising", scorer, queries, ks=[1]).estimates
    assert found["auc"].mean == pytest.approx((2 / 4 + 1) / 2)
    assert found["group_auc"].mean == pytest.approx((2 / 4 + 3 * 1) / 4)


def test_a_silent_system_has_an_area_of_one_half() -> None:
    assert evaluate("silent", silent_scorer, planted_queries()).estimates["auc"] == (0.5, 0.5, 0.5)


def test_evaluation_without_a_cut_off_or_with_an_empty_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="ks must be one or more numbers"):
        evaluate("oracle", oracle_scorer, planted_queries(), ks=())
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate("oracle", oracle_scorer, planted_queries(), batch_size=0)
