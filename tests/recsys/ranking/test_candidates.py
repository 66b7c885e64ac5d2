from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.bundle import Bundle
from recsys.catalogue.search import CatalogueSearch
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.ranking.candidates import CandidateSource, seen_items
from recsys.ranking.features import ItemTable, build_item_table


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


@pytest.fixture
def catalogue(bundle: Bundle) -> Catalogue:
    return Catalogue(bundle.items, bundle.item_embeddings)


@pytest.fixture
def table(bundle: Bundle, catalogue: Catalogue) -> ItemTable:
    kinds = torch.ones(len(bundle.interactions.kind_names), dtype=torch.bool)
    return build_item_table(catalogue, bundle.statistics, kinds)


def history(*rows: int) -> History:
    nothing = np.zeros(len(rows), dtype=np.int64)
    return History(np.array(rows, dtype=np.int64), nothing, nothing)


def vectors(n_users: int, table: ItemTable) -> torch.Tensor:
    return table.embeddings[:n_users]


def test_a_small_catalogue_is_ranked_whole_and_shared_by_all_users(
    catalogue: Catalogue, table: ItemTable
) -> None:
    mask = np.arange(len(catalogue)) % 2 == 0
    users = [history(0, 2, 3, 2), EMPTY_HISTORY]
    source = CandidateSource(CatalogueSearch(catalogue))
    rows, allowed = source.choose(users, vectors(2, table), mask, table, exclude_seen=True)
    assert rows.tolist() == np.flatnonzero(mask).tolist()
    assert rows[~allowed[0]].tolist() == [0, 2]
    assert allowed[1].all()


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_users_have_the_candidates_together_that_each_has_alone(
    catalogue: Catalogue, table: ItemTable, exclude_seen: bool
) -> None:
    # Of 51 allowed items the second user has seen three, and 48 are few enough for all.
    mask = np.arange(len(catalogue)) <= 50
    users = [history(5), history(1, 2, 3), EMPTY_HISTORY]
    source = CandidateSource(CatalogueSearch(catalogue), rank_all_up_to=49, offers_per_source=4)
    together = source.choose(users, vectors(3, table), mask, table, exclude_seen=exclude_seen)
    for n, met in enumerate(users):
        alone = source.choose(
            [met], vectors(3, table)[n : n + 1], mask, table, exclude_seen=exclude_seen
        )
        found = together.rows[n][together.allowed[n]].tolist()
        assert found == alone.rows[0][alone.allowed[0]].tolist()
        assert mask[found].all()
        assert len(found) == len(set(found))
        if exclude_seen:
            assert not set(found) & set(met.item_rows.tolist())
    n_second = int(together.allowed[1].sum())
    assert (n_second == 48) == exclude_seen


def test_what_a_filter_leaves_is_offered_by_every_source(
    bundle: Bundle, catalogue: Catalogue, table: ItemTable
) -> None:
    statistics = bundle.statistics
    least = np.argsort(statistics.recent_buyers)[:25]
    mask = np.zeros(len(catalogue), dtype=bool)
    mask[least] = True
    source = CandidateSource(CatalogueSearch(catalogue), rank_all_up_to=20, offers_per_source=2)
    rows, allowed = source.choose(
        [EMPTY_HISTORY], vectors(1, table), mask, table, exclude_seen=False
    )
    offered = rows[0][allowed[0]].numpy()
    assert len(offered) < 25
    assert mask[offered].all()
    assert statistics.recent_buyers[least].max() in statistics.recent_buyers[offered]
    assert catalogue.created_us[least].max() in catalogue.created_us[offered]


def test_seen_items_are_those_of_each_history() -> None:
    seen = seen_items([history(3, 3, 0), EMPTY_HISTORY, history(1)], 4)
    assert seen.tolist() == [
        [True, False, False, True],
        [False] * 4,
        [False, True, False, False],
    ]
