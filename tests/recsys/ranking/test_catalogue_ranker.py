from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY, Interactions
from recsys.errors import InvalidArgumentError
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.candidates import SOURCES, CandidateSource
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import build_statistics
from recsys.ranking.user_events import HISTORY_EVENTS
from tests.recsys.ranking.planted_tables import (
    DAY,
    NOW,
    PURCHASE,
    VIEW,
    history,
    interactions,
)
from tests.recsys.ranking.test_item_table import items

N, DIM = 30, 6
NAMES = [f"item-{row:02}" for row in range(N)]
KINDS = {"purchase": True, "view": False}
EVERYTHING: NDArray[np.bool_] = np.ones(N, dtype=np.bool_)


def log() -> Interactions:
    generator = np.random.default_rng(0)
    rows = (28 * generator.beta(0.7, 1.4, 300)).astype(int).tolist()
    days = generator.uniform(0.5, 80, 300).tolist()
    users = generator.integers(0, 30, 300).tolist()
    return interactions(*zip(users, rows, days, strict=True), n_items=N)


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def encoder() -> UserEncoder:
    torch.manual_seed(0)
    return UserEncoder(DIM, n_kinds=2, spec=UserEncoderSpec(8, 2, 1, history_length=5))


def catalogue_ranker(
    catalogue: Catalogue, name: str, discovery: str | None = None, *, rank_all_up_to: int = 99
) -> CatalogueRanker:
    other = None if discovery is None else SimpleRanker(discovery)
    return CatalogueRanker(
        catalogue,
        UserRanker(encoder(), SimpleRanker(name), other),
        CandidateSource(rank_all_up_to=rank_all_up_to, offers=dict.fromkeys(SOURCES, 8)),
        build_statistics(log(), NOW, target_kinds=["purchase"]),
        KINDS,
    )


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(items(*NAMES, price=1.0), vectors(N))


USERS = [
    history((4, PURCHASE, 30.0), (0, PURCHASE, 8.0), (4, PURCHASE, 1.0)),
    EMPTY_HISTORY,
    history((0, VIEW, 3.0), (1, PURCHASE, 2.0), (9, VIEW, 1.0)),
]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_the_best_are_the_highest_scores_of_the_ranker_of_the_scope(
    catalogue: Catalogue, exclude_seen: bool
) -> None:
    ranker = catalogue_ranker(catalogue, "own purchases", "EASE")
    mask = np.arange(N) != 3
    scores = ranker.scores(USERS, NOW, discovery=exclude_seen)
    best = ranker.best(USERS, 5, now_us=NOW, mask=mask, exclude_seen=exclude_seen)
    assert best.exclude_seen == exclude_seen
    for user, met in enumerate(USERS):
        allowed = mask.copy()
        allowed[met.item_rows] &= not exclude_seen
        wanted = np.where(allowed, scores[user], -np.inf)
        np.testing.assert_allclose(best.scores[user], np.sort(wanted)[::-1][:5], rtol=1e-6)
        np.testing.assert_allclose(wanted[best.rows[user]], best.scores[user], rtol=1e-6)


@pytest.mark.parametrize("rank_all_up_to", [5, 99])
def test_scores_are_those_of_the_best_and_minus_infinity_for_all_else(
    catalogue: Catalogue, rank_all_up_to: int
) -> None:
    ranker = catalogue_ranker(catalogue, "EASE", "iALS", rank_all_up_to=rank_all_up_to)
    mask = np.arange(N) % 5 != 1
    best = ranker.best(USERS, 8, now_us=NOW, mask=mask, exclude_seen=False)
    scores = ranker.scores(USERS, NOW, mask=mask)
    for user in range(len(USERS)):
        found = np.argsort(-scores[user], kind="stable")[:8]
        assert best.counts[user] == 8
        np.testing.assert_allclose(scores[user, found], best.scores[user], rtol=1e-5, atol=1e-6)
        of_best = scores[user, best.rows[user].numpy()]
        np.testing.assert_allclose(of_best, best.scores[user], rtol=1e-5, atol=1e-6)
        assert np.isneginf(scores[user, ~mask]).all()
        assert 8 <= np.isfinite(scores[user]).sum() <= mask.sum()


@pytest.mark.parametrize("k", [3, N])
def test_there_are_as_many_results_as_wanted_and_allowed(catalogue: Catalogue, k: int) -> None:
    ranker = catalogue_ranker(catalogue, "EASE", rank_all_up_to=5)
    best = ranker.best(USERS, k, now_us=NOW, mask=EVERYTHING, exclude_seen=False)
    assert best.counts.tolist() == [k, k, k]


def test_scores_for_discovery_keep_own_items_which_callers_leave_out(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "own purchases", "EASE")
    scores = ranker.scores(USERS, NOW, discovery=True)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, catalogue_ranker(catalogue, "EASE").scores(USERS, NOW))


def test_an_item_met_before_the_events_that_are_read_is_the_users_own(
    catalogue: Catalogue,
) -> None:
    ranker = catalogue_ranker(catalogue, "EASE")
    long = history((5, VIEW, 2_000.0), *[(6, VIEW, 1.0)] * HISTORY_EVENTS)
    best = ranker.best([long], N, now_us=NOW, mask=EVERYTHING, exclude_seen=True)
    assert not {5, 6} & set(best.rows[0, : int(best.counts[0])].tolist())
    ranked = ranker.rank(long, np.array([5, 7]), NOW)
    sources = {one.item_id: one.source for one in ranker.results(ranked, explain=False)}
    assert sources[catalogue.item_ids[5]] == "own_history"
    assert sources[catalogue.item_ids[7]] != "own_history"


def test_scores_may_be_of_a_moment_of_each_user(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "EASE")
    moments = np.array([NOW - 5 * DAY, NOW, NOW - 2 * DAY])
    together = ranker.scores(USERS, moments)
    for user, (met, moment) in enumerate(zip(USERS, moments.tolist(), strict=True)):
        alone = ranker.scores([met], moment)[0]
        np.testing.assert_allclose(together[user], alone, rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[2], ranker.scores(USERS, NOW)[2])


def test_each_scope_has_its_own_ranker(catalogue: Catalogue) -> None:
    both = catalogue_ranker(catalogue, "own purchases", "EASE")
    for exclude_seen, name in ((False, "own purchases"), (True, "EASE")):
        one = catalogue_ranker(catalogue, name)
        found = both.scores(USERS, NOW, discovery=exclude_seen)
        np.testing.assert_array_equal(found, one.scores(USERS, NOW, discovery=exclude_seen))
        best, wanted = (
            each.best(USERS, 4, now_us=NOW, mask=EVERYTHING, exclude_seen=exclude_seen)
            for each in (both, one)
        )
        assert torch.equal(best.rows, wanted.rows)


def test_reasons_are_those_of_the_ranker_of_the_scope(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "own purchases", "EASE")
    for exclude_seen, name in ((False, "own_long"), (True, "ease")):
        best = ranker.best(USERS[:1], 3, now_us=NOW, mask=EVERYTHING, exclude_seen=exclude_seen)
        first = ranker.results(best, explain=True)[0]
        assert [reason for reason, _ in first.features] == [name]
        assert all(not result.features for result in ranker.results(best, explain=False))


@pytest.mark.parametrize("rank_all_up_to", [5, 99])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_users_have_the_best_together_that_each_has_alone(
    catalogue: Catalogue, exclude_seen: bool, rank_all_up_to: int
) -> None:
    ranker = catalogue_ranker(catalogue, "EASE", rank_all_up_to=rank_all_up_to)
    options: dict[str, Any] = {"now_us": NOW, "mask": EVERYTHING, "exclude_seen": exclude_seen}
    together = ranker.best_table(USERS, 6, block_size=None, **options)
    by_two = ranker.best_table(USERS, 6, block_size=2, **options)
    alone = [
        ranker.best_table([met], 6, block_size=1, **options).with_columns(
            user=pl.lit(user, pl.Int64)
        )
        for user, met in enumerate(USERS)
    ]
    columns = ["user", "rank", "item_id", "source"]
    for other in (by_two, pl.concat(alone)):
        assert together.select(columns).equals(other.select(columns))
        np.testing.assert_allclose(together["score"], other["score"], rtol=1e-5, atol=1e-6)


def test_given_rows_are_ranked_all_and_in_order(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "EASE", "own purchases")
    rows = np.array([7, 0, 4, 29, 12])
    best = ranker.rank(USERS[0], rows, NOW)
    scores = ranker.scores(USERS[:1], NOW)[0]
    assert sorted(best.rows[0].tolist()) == sorted(rows.tolist())
    assert best.rows[0].tolist() == sorted(rows.tolist(), key=lambda row: -scores[row])
    assert len(ranker.results(best, explain=True)) == 5


def test_where_nothing_is_allowed_there_are_no_results(catalogue: Catalogue) -> None:
    for limit in (5, 99):
        ranker = catalogue_ranker(catalogue, "EASE", rank_all_up_to=limit)
        options: dict[str, Any] = {"now_us": NOW, "mask": ~EVERYTHING, "exclude_seen": True}
        best = ranker.best(USERS[:1], 3, **options)
        assert ranker.results(best, explain=True) == []
        assert len(ranker.best_table(USERS, 3, block_size=None, **options)) == 0
    assert len(ranker.best_table([], 3, block_size=None, **options)) == 0
    assert ranker.scores([], NOW).shape == (0, N)


def test_fewer_items_than_asked_for_are_returned_without_padding(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "popularity")
    mask = np.isin(np.arange(N), [0, 1, 4])
    table = ranker.best_table(USERS, 10, now_us=NOW, mask=mask, exclude_seen=True, block_size=None)
    assert table["user"].value_counts().sort("user")["count"].to_list() == [1, 3, 1]
    assert table.filter(user=0)["item_id"].to_list() == ["item-01"]
    assert table["score"].is_finite().all()


def test_a_new_item_is_ranked_after_a_refresh(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "content")
    met = history((4, PURCHASE, 1.0))
    catalogue.upsert(items("new", price=2.0), catalogue.embeddings[4:5].numpy().copy())
    ranker.refresh()
    best = ranker.best([met], 1, now_us=NOW, mask=np.ones(N + 1, dtype=np.bool_), exclude_seen=True)
    found = ranker.results(best, explain=True)
    assert [(result.item_id, result.source) for result in found] == [("new", "taste")]
    assert found[0].reason is not None
    assert (found[0].reason.item_id, found[0].reason.text) == (
        NAMES[4],
        "Because you bought item-04",
    )


def test_newcomers_get_what_is_popular_or_new(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "popularity")
    best = ranker.rank(EMPTY_HISTORY, np.array([0, 1, 29]), NOW)
    found = {one.item_id: one.source for one in ranker.results(best, explain=False)}
    assert found == {"item-00": "popular", "item-01": "popular", "item-29": "new"}


def test_a_block_without_users_is_refused(catalogue: Catalogue) -> None:
    ranker = catalogue_ranker(catalogue, "popularity")
    with pytest.raises(InvalidArgumentError, match="block_size must be at least 1, got 0"):
        ranker.best_table(USERS, 3, now_us=NOW, mask=EVERYTHING, exclude_seen=False, block_size=0)
