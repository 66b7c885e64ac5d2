"""Simple recommenders answer where a network or the trees fail, and only there."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recsys.catalogue.store import Catalogue
from recsys.config import TreesConfig
from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.errors import RankingError, UnknownItemError
from recsys.models.ranker import Ranker
from recsys.models.trees import TreeQueries, TreeRanker, train_trees
from recsys.ranking.best import RANKER_FAILED, Best
from recsys.ranking.candidates import SOURCES, CandidateSource
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import POPULARITY, SIMPLE, SimpleRanker, best_simple
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics, build_statistics
from recsys.rules import Pin, Rules
from tests.recsys.ranking.planted_tables import NOW
from tests.recsys.ranking.test_catalogue_ranker import (
    DIM,
    EVERYTHING,
    KINDS,
    NAMES,
    USERS,
    N,
    encoder,
    log,
    vectors,
)
from tests.recsys.ranking.test_item_table import items

CHOICE = {
    "all": "trees",
    "new": "trees",
    "trials": [
        {"scope": "all", "name": "trees", "ndcg": 0.4},
        {"scope": "all", "name": "taste", "ndcg": 0.3},
        {"scope": "all", "name": "own purchases", "ndcg": 0.2},
        {"scope": "all", "name": "EASE", "ndcg": 0.1},
        {"scope": "new", "name": "trees", "ndcg": 0.3},
        {"scope": "new", "name": "item-kNN", "ndcg": 0.05},
        {"scope": "new", "name": "EASE", "ndcg": 0.2},
    ],
}


def without_numbers() -> UserRanker:
    """Return a network whose weights are no numbers."""
    torch.manual_seed(0)
    network = Ranker(len(FEATURES), hidden=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    return UserRanker(encoder(), network)


def foreign_trees() -> TreeRanker:
    """Return trees that learned from three features."""
    features = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    queries = TreeQueries(features, (features[:, 0] > 0.5).astype(np.float32), np.array([20, 20]))
    config = TreesConfig(trees=2, min_candidates=2)
    return train_trees(queries, config, ["a", "b", "c"], seed=0, threads=1)


def with_foreign_trees() -> UserRanker:
    return UserRanker(encoder(), foreign_trees())


def without_taste() -> UserRanker:
    """Return a user encoder whose weights are no numbers, beside a ranker that works."""
    broken = encoder()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(torch.nan)
    return UserRanker(broken, SimpleRanker("iALS"))


def without_newcomers() -> UserRanker:
    """Return a user encoder that fails for users without events alone."""
    broken = encoder()
    with torch.no_grad():
        broken.newcomer.fill_(torch.nan)
    return UserRanker(broken, SimpleRanker("iALS"))


def ranked(
    ranker: UserRanker, *, choice: Any = CHOICE, statistics: Statistics | None = None
) -> CatalogueRanker:
    return CatalogueRanker(
        Catalogue(items(*NAMES, price=1.0), vectors(N)),
        ranker,
        CandidateSource(rank_all_up_to=5, offers=dict.fromkeys(SOURCES, 8)),
        statistics or build_statistics(log(), NOW, target_kinds=["purchase"]),
        KINDS,
        choice=choice,
    )


def by(name: str) -> CatalogueRanker:
    """Return what a simple recommender ranks, with user vectors of zeros."""
    zeros = encoder()
    zeros.forward = lambda items, *_: torch.zeros(len(items), DIM)  # type: ignore[method-assign]
    return ranked(UserRanker(zeros, SimpleRanker(name)))


def best(ranker: CatalogueRanker, histories: list[History] = USERS, **wanted: Any) -> Best:
    given = {"k": 6, "now_us": NOW, "mask": EVERYTHING, "exclude_seen": False, **wanted}
    return ranker.best(histories, **given)


BROKEN = pytest.mark.parametrize("broken", [without_numbers, with_foreign_trees, without_taste])


@BROKEN
@pytest.mark.parametrize(("seen", "name"), [(False, "own purchases"), (True, "EASE")])
def test_the_best_simple_recommender_of_the_scope_answers(
    broken: Callable[[], UserRanker], seen: bool, name: str
) -> None:
    ranker, wanted = ranked(broken()), best(by(name), exclude_seen=seen)
    found = best(ranker, exclude_seen=seen)
    assert found.degraded == (RANKER_FAILED,)
    assert wanted.degraded == ()
    assert torch.equal(found.rows, wanted.rows)
    assert torch.equal(found.scores, wanted.scores)
    for user in range(len(USERS)):
        alone = best(ranker, USERS[user : user + 1], exclude_seen=seen)
        for result in ranker.results(alone, explain=True):
            assert {one for one, _ in result.features} <= {SIMPLE[name]}
            assert result.reason is not None


@BROKEN
def test_the_callers_candidates_are_ranked_by_the_simple_recommender(
    broken: Callable[[], UserRanker],
) -> None:
    rows = np.array([9, 4, 0, 21])
    found = ranked(broken()).rank(USERS[0], rows, NOW)
    wanted = by("own purchases").rank(USERS[0], rows, NOW)
    assert found.degraded == (RANKER_FAILED,)
    assert torch.equal(found.rows, wanted.rows)
    assert torch.equal(found.scores, wanted.scores)


def test_a_whole_ranker_is_not_degraded(caplog: pytest.LogCaptureFixture) -> None:
    ranker = ranked(UserRanker(encoder(), SimpleRanker("iALS")))
    assert best(ranker).degraded == ()
    assert ranker.rank(USERS[0], np.array([3, 1]), NOW).degraded == ()
    assert not caplog.records


def test_popularity_answers_where_the_simple_recommender_fails_too() -> None:
    statistics = build_statistics(log(), NOW, target_kinds=["purchase"])
    damaged = replace(statistics, ease_weights=np.full_like(statistics.ease_weights, np.nan))
    choice = {"trials": [{"scope": "all", "name": "EASE", "ndcg": 0.2}]}
    found = best(ranked(without_numbers(), choice=choice, statistics=damaged))
    assert found.degraded == (RANKER_FAILED,)
    assert found.simple is not None
    assert found.simple.name == POPULARITY
    assert found.scores.isfinite().all()


def test_where_popularity_fails_too_the_failure_is_raised() -> None:
    statistics = build_statistics(log(), NOW, target_kinds=["purchase"])
    damaged = replace(statistics, users=np.full_like(statistics.users, np.nan))
    with pytest.raises(RankingError, match="finite numbers"):
        best(ranked(without_numbers(), statistics=damaged))


def test_only_users_for_whom_it_fails_get_a_degraded_answer_in_a_table() -> None:
    users = [*USERS, EMPTY_HISTORY, USERS[0]]
    wanted = {"now_us": NOW, "mask": EVERYTHING, "exclude_seen": False}
    whole = ranked(UserRanker(encoder(), SimpleRanker("iALS"))).best_table(users, 4, None, **wanted)
    ranker = ranked(without_newcomers())
    for block_size in (1, 2, 100):
        found = ranker.best_table(users, 4, block_size, **wanted)
        degraded = found.group_by("user", maintain_order=True).agg("degraded")
        newcomers = [not len(one.item_rows) for one in users]
        for newcomer, reasons in zip(newcomers, degraded["degraded"].to_list(), strict=True):
            assert reasons == [RANKER_FAILED if newcomer else None] * 4
        known = found.filter(found["degraded"].is_null())
        assert known.equals(whole.filter(~whole["user"].is_in([1, 3])))


def test_the_first_failure_is_logged_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    ranker = ranked(with_foreign_trees())
    for _ in range(3):
        best(ranker)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "features must have 3 columns" in record.getMessage()
    assert record.exc_info is not None  # with the traceback of the cause


@BROKEN
def test_what_evaluation_reads_raises(broken: Callable[[], UserRanker]) -> None:
    ranker = ranked(broken())
    with pytest.raises(RankingError, match="serve an earlier bundle, or train again"):
        ranker.scores(USERS, NOW)
    with pytest.raises(RankingError, match="serve an earlier bundle, or train again"):
        ranker.offered(USERS, NOW, mask=EVERYTHING)


def test_bad_input_is_refused_as_by_a_whole_ranker() -> None:
    rules = Rules(pin=(Pin("no such item", position=1),))
    with pytest.raises(UnknownItemError, match="no such item"):
        best(ranked(without_numbers()), rules=rules)


@pytest.mark.parametrize(("scope", "name"), [("all", "own purchases"), ("new", "EASE")])
def test_the_best_simple_recommender_needs_no_network(scope: str, name: str) -> None:
    assert best_simple(CHOICE, scope).name == name
    assert best_simple({}, scope).name == POPULARITY
    assert best_simple({"trials": []}, scope).name == POPULARITY
