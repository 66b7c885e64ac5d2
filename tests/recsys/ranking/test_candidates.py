from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle import Bundle
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY
from recsys.ranking.candidates import (
    Candidates,
    CandidateSource,
    source_scores,
)
from recsys.ranking.item_table import ItemTable, build_item_table
from recsys.ranking.profiles import UserProfiles
from tests.recsys.ranking.planted_tables import PURCHASE, VIEW, history, profiles_of


@pytest.fixture
def table(tiny_bundle: Path) -> ItemTable:
    bundle = Bundle(tiny_bundle)
    kinds = torch.ones(len(bundle.interactions.kind_names), dtype=torch.bool)
    return build_item_table(
        Catalogue(bundle.items, bundle.item_embeddings), bundle.statistics, kinds
    )


USERS = [
    history((5, PURCHASE, 9.0)),
    history((1, PURCHASE, 9.0), (2, VIEW, 8.0), (3, PURCHASE, 1.0), (2, VIEW, 1.0)),
    EMPTY_HISTORY,
]


def few(items: list[int], n_items: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(n_items), items)


def rows_of(candidates: Candidates, user: int) -> list[int]:
    """Return the candidates of one user, and check that none is there twice."""
    rows = candidates.rows.expand(candidates.allowed.shape)[user][candidates.allowed[user]].tolist()
    assert len(rows) == len(set(rows))
    return rows


def offered_by_definition(
    scores: dict[str, Tensor], user: int, allowed: set[int], n_offers: int
) -> set[int]:
    """Return the union of the best allowed items of every source."""
    found: set[int] = set()
    for values in scores.values():
        line = values[user if len(values) > 1 else 0].tolist()
        found |= set(sorted(allowed, key=lambda row: -line[row])[:n_offers])
    return found


def distinct(profiles: UserProfiles, table: ItemTable) -> None:
    """Add a little to all scores, in place, so that no two are equal."""
    generator = torch.Generator().manual_seed(0)
    for values in (*profiles.scores.values(), table.users):
        values += 1e-3 * torch.rand(values.shape, generator=generator)
    table.created_us.add_(torch.arange(len(table)))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_a_small_catalogue_is_ranked_whole_and_shared_by_all_users(
    table: ItemTable, exclude_seen: bool
) -> None:
    mask = np.arange(len(table)) % 2 == 0
    profiles = profiles_of([history((0, VIEW, 2.0), (3, VIEW, 1.0)), EMPTY_HISTORY], table)
    source = CandidateSource(rank_all_up_to=int(mask.sum()))
    found = source.choose(profiles, mask, table, exclude_seen=exclude_seen)
    assert found.rows.tolist() == np.flatnonzero(mask).tolist()
    assert found.rows[~found.allowed[0]].tolist() == ([0] if exclude_seen else [])
    assert found.allowed[1].all()


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("n_offers", [1, 4, 20])
def test_of_a_large_catalogue_the_best_of_every_source_are_ranked(
    table: ItemTable, exclude_seen: bool, n_offers: int
) -> None:
    mask = np.random.default_rng(0).random(len(table)) < 0.6
    profiles = profiles_of(USERS, table)
    distinct(profiles, table)
    source = CandidateSource(rank_all_up_to=10, offers_per_source=n_offers)
    found = source.choose(profiles, mask, table, exclude_seen=exclude_seen)
    scores = source_scores(profiles, table)
    for user, met in enumerate(USERS):
        seen = set(met.item_rows.tolist())
        allowed = set(np.flatnonzero(mask).tolist()) - (seen if exclude_seen else set())
        wanted = offered_by_definition(scores, user, allowed, n_offers) | (seen & allowed)
        assert rows_of(found, user) == sorted(wanted)


def test_one_more_item_than_the_limit_is_too_many(table: ItemTable) -> None:
    profiles, mask = profiles_of(USERS, table), few(list(range(50)), len(table))
    for limit, shape in ((50, (50,)), (49, None)):
        source = CandidateSource(rank_all_up_to=limit, offers_per_source=2)
        found = source.choose(profiles, mask, table, exclude_seen=False)
        assert (found.rows.shape == shape) == (limit == 50)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_users_have_the_candidates_together_that_each_has_alone(
    table: ItemTable, exclude_seen: bool
) -> None:
    mask = np.arange(len(table)) <= 50
    source = CandidateSource(rank_all_up_to=20, offers_per_source=4)
    vectors = table.embeddings[:3]
    together = source.choose(
        profiles_of(USERS, table, vectors=vectors), mask, table, exclude_seen=exclude_seen
    )
    for user, met in enumerate(USERS):
        profiles = profiles_of([met], table, vectors=vectors[user, None])
        alone = source.choose(profiles, mask, table, exclude_seen=exclude_seen)
        rows = rows_of(together, user)
        assert rows == rows_of(alone, 0)
        assert mask[rows].all()
        assert bool(set(rows) & set(met.item_rows.tolist())) == (
            not exclude_seen and met is not EMPTY_HISTORY
        )


def test_a_history_longer_than_all_offers_is_ranked_with_them(table: ItemTable) -> None:
    long = history(*((row, PURCHASE, 90.0 - row) for row in range(60)))
    source = CandidateSource(rank_all_up_to=10, offers_per_source=1)
    mask = np.arange(len(table)) != 7
    found = source.choose(profiles_of([long], table), mask, table, exclude_seen=False)
    assert set(rows_of(found, 0)) >= set(range(60)) - {7}


def test_what_a_filter_leaves_is_offered_by_every_source(table: ItemTable) -> None:
    least = table.users[:, 0].argsort()[:25]
    mask = few(least.tolist(), len(table))
    source = CandidateSource(rank_all_up_to=20, offers_per_source=2)
    profiles = profiles_of([EMPTY_HISTORY], table)
    offered = rows_of(source.choose(profiles, mask, table, exclude_seen=False), 0)
    assert len(offered) < 25
    assert mask[offered].all()
    popular = source_scores(profiles, table)["popular"][0]
    assert popular[least].max() == popular[offered].max()
    assert table.created_us[least].max() == table.created_us[offered].max()


@pytest.mark.parametrize("limit", [0, 10])
def test_where_nothing_is_allowed_there_are_no_candidates(table: ItemTable, limit: int) -> None:
    source = CandidateSource(rank_all_up_to=limit)
    nothing = np.zeros(len(table), dtype=np.bool_)
    found = source.choose(profiles_of(USERS, table), nothing, table, exclude_seen=True)
    assert [rows_of(found, user) for user in range(3)] == [[], [], []]


def test_a_user_who_has_everything_has_no_new_candidates(table: ItemTable) -> None:
    has_all = history(*((row, PURCHASE, 900.0 - row) for row in range(len(table))))
    source = CandidateSource(rank_all_up_to=10, offers_per_source=3)
    mask = np.ones(len(table), dtype=np.bool_)
    profiles = profiles_of([has_all, EMPTY_HISTORY], table)
    found = source.choose(profiles, mask, table, exclude_seen=True)
    assert rows_of(found, 0) == []
    assert rows_of(found, 1)
