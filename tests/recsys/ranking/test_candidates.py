from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle import Bundle
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY
from recsys.errors import InvalidArgumentError
from recsys.ranking.candidates import (
    SOURCES,
    Candidates,
    CandidateSource,
    _best,
    best_places,
    feature_scores,
    source_scores,
)
from recsys.ranking.features import ranking_features
from recsys.ranking.item_table import ItemTable, Neighbours, build_item_table
from recsys.ranking.profiles import UserProfiles
from tests.recsys.ranking.planted_tables import DAY, PURCHASE, VIEW, history, profiles_of


@pytest.fixture
def table(tiny_bundle: Path) -> ItemTable:
    bundle = Bundle(tiny_bundle)
    kinds = torch.ones(len(bundle.interactions.kind_names), dtype=torch.bool)
    return build_item_table(
        Catalogue(bundle.items, bundle.item_embeddings), bundle.statistics, kinds
    )


USERS = [
    history((5, PURCHASE, 9.0)),
    history((1, PURCHASE, 9.0), (2, VIEW, 8.0), (3, PURCHASE, 1.5), (2, VIEW, 1.0)),
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
    """Return the union of the best allowed items of every source that it scores above 0."""
    found: set[int] = set()
    for name, values in scores.items():
        line = values[user if len(values) > 1 else 0].tolist()
        best = sorted(allowed, key=lambda row: -line[row])[:n_offers]
        found |= {row for row in best if line[row] > 0 or name == "popular"}
    return found


def even(count: int, **others: int) -> dict[str, int]:
    """Return the same number for every source but the named ones."""
    return dict.fromkeys(SOURCES, count) | others


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
    source = CandidateSource(rank_all_up_to=10, offers=even(n_offers))
    found = source.choose(profiles, mask, table, exclude_seen=exclude_seen)
    scores = source_scores(profiles, table)
    for user, met in enumerate(USERS):
        seen = set(met.item_rows.tolist())
        allowed = set(np.flatnonzero(mask).tolist()) - (seen if exclude_seen else set())
        wanted = offered_by_definition(scores, user, allowed, n_offers)
        assert rows_of(found, user) == sorted(wanted)
        by_source = source.by_source(profiles, mask, table, exclude_seen=exclude_seen)
        union = torch.stack([*by_source.values()])[:, user].any(dim=0)
        assert union.nonzero()[:, 0].tolist() == sorted(wanted)


def related_table(table: ItemTable, pairs: dict[int, int]) -> ItemTable:
    """Return the table of a shop where one item goes with another, by row."""
    rows = torch.full((len(table), 1), -1)
    rows[[*pairs], 0] = torch.tensor([*pairs.values()])
    return replace(table, related={"goes_with": Neighbours(rows, (rows >= 0).float())})


def test_an_item_that_goes_with_one_of_the_users_is_offered(table: ItemTable) -> None:
    least = int((table.users[:, 0] + 1e-3 * table.created_us.argsort().argsort()).argmin())
    source = CandidateSource(rank_all_up_to=10, offers=even(2))
    mask = np.ones(len(table), dtype=np.bool_)
    offered = []
    for one in (table, related_table(table, {5: least})):
        profiles = profiles_of(USERS, one)
        found = source.choose(profiles, mask, one, exclude_seen=True)
        offered.append([set(rows_of(found, user)) for user in range(len(USERS))])
    without, related = offered
    assert least not in without[0]
    assert least in related[0]
    for fewer, more in zip(without, related, strict=True):
        assert fewer <= more, "relations take no candidate away"


def test_one_more_item_than_the_limit_is_too_many(table: ItemTable) -> None:
    profiles, mask = profiles_of(USERS, table), few(list(range(50)), len(table))
    for limit, shape in ((50, (50,)), (49, None)):
        source = CandidateSource(rank_all_up_to=limit, offers=even(2))
        found = source.choose(profiles, mask, table, exclude_seen=False)
        assert (found.rows.shape == shape) == (limit == 50)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_users_have_the_candidates_together_that_each_has_alone(
    table: ItemTable, exclude_seen: bool
) -> None:
    mask = np.arange(len(table)) <= 50
    source = CandidateSource(rank_all_up_to=20, offers=even(4))
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
    source = CandidateSource(rank_all_up_to=10, offers=even(1, own_history=1_000))
    mask = np.arange(len(table)) != 7
    found = source.choose(profiles_of([long], table), mask, table, exclude_seen=False)
    assert set(rows_of(found, 0)) >= set(range(60)) - {7}


def test_what_a_user_takes_after_the_moment_is_not_offered_as_their_own(table: ItemTable) -> None:
    """A replay of the past knows the whole history, and offers by what came before alone."""
    source = CandidateSource(rank_all_up_to=10, offers=even(0, own_history=50))
    profiles = profiles_of([history((4, PURCHASE, 2.0), (9, PURCHASE, -1.0))], table)
    assert profiles.seen[0, [4, 9]].all()
    found = source.choose(profiles, np.ones(len(table), dtype=bool), table, exclude_seen=False)
    assert rows_of(found, 0) == [4]


def test_what_a_filter_leaves_is_offered_by_every_source(table: ItemTable) -> None:
    least = table.users[:, 0].argsort()[:25]
    mask = few(least.tolist(), len(table))
    source = CandidateSource(rank_all_up_to=20, offers=even(2))
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
    source = CandidateSource(rank_all_up_to=10, offers=even(3))
    mask = np.ones(len(table), dtype=np.bool_)
    profiles = profiles_of([has_all, EMPTY_HISTORY], table)
    found = source.choose(profiles, mask, table, exclude_seen=True)
    assert rows_of(found, 0) == []
    assert rows_of(found, 1)


def test_own_items_are_offered_last_met_first(table: ItemTable) -> None:
    met = history((7, PURCHASE, 50.0), (5, VIEW, 9.0), (7, VIEW, 3.0), (9, PURCHASE, 1.0))
    everything = np.ones(len(table), dtype=np.bool_)
    for count, wanted in ((1, {9}), (2, {7, 9}), (50, {5, 7, 9})):
        source = CandidateSource(offers=even(1, own_history=count))
        profiles = profiles_of([met], table)
        offered = source.by_source(profiles, everything, table, exclude_seen=False)
        assert set(offered["own_history"][0].nonzero()[:, 0].tolist()) == wanted


@pytest.mark.parametrize("off", SOURCES)
def test_a_source_with_0_neither_offers_nor_names_anything(table: ItemTable, off: str) -> None:
    profiles = profiles_of(USERS, table)
    distinct(profiles, table)
    everything = np.ones(len(table), dtype=np.bool_)
    source = CandidateSource(rank_all_up_to=10, offers=even(5, **{off: 0}))
    assert off not in source.by_source(profiles, everything, table, exclude_seen=False)
    found = source.choose(profiles, everything, table, exclude_seen=False)
    without = {name: one for name, one in source_scores(profiles, table).items() if name != off}
    for user in range(len(USERS)):
        wanted = offered_by_definition(without, user, set(range(len(table))), 5)
        assert len(rows_of(found, user)) == len(wanted)
    places = torch.arange(found.allowed.shape[1]).expand(found.allowed.shape)
    codes = named(source, found, profiles, table, places)[found.allowed].unique().tolist()
    assert off not in {SOURCES[code] for code in codes} - {"new"}  # of which nobody says anything


def test_popular_items_fill_up_to_what_is_wanted(table: ItemTable) -> None:
    source = CandidateSource(rank_all_up_to=10, offers=even(2))
    profiles, mask = profiles_of([EMPTY_HISTORY], table), np.arange(len(table)) < 60
    few = source.choose(profiles, mask, table, exclude_seen=False)
    many = source.choose(profiles, mask, table, exclude_seen=False, at_least=55)
    assert len(rows_of(few, 0)) <= 4
    assert len(rows_of(many, 0)) >= 55


@pytest.mark.parametrize(
    ("offers", "message"),
    [
        ({"tatse": 5}, r"offers must name sources out of own_history, .*, got 'tatse'; did you "),
        ({"taste": -1}, r"offers\['taste'\] must be a whole number, 0 or more, got -1"),
        ({"new": 2.5}, r"offers\['new'\] must be a whole number, 0 or more, got 2.5"),
        ({"new": True}, r"offers\['new'\] must be a whole number"),
    ],
)
def test_offers_that_are_wrong_are_refused(offers: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        CandidateSource(offers=offers)


def named(
    source: CandidateSource,
    found: Candidates,
    profiles: UserProfiles,
    table: ItemTable,
    places: Tensor,
) -> Tensor:
    """Return the source of the candidates at some places, from their features."""
    features = ranking_features(profiles, found.rows, table)
    chosen = found.rows.expand(found.allowed.shape).gather(1, places)
    return source.strongest(features, found.allowed, places, profiles.seen.gather(1, chosen))


def test_features_give_the_scores_by_which_the_sources_offer(table: ItemTable) -> None:
    profiles = profiles_of(USERS, table, now_us=int(table.created_us.max()) + DAY)
    rows = torch.arange(len(table))
    found = feature_scores(ranking_features(profiles, rows, table))
    for name, scores in source_scores(profiles, table).items():
        wanted = scores.expand(len(USERS), -1).to(torch.float32)
        if name == "new":  # another scale, and 0 where the age is unknown
            np.testing.assert_array_equal(found[name] > 0, wanted > 0)
            np.testing.assert_array_equal(
                np.argsort(-found[name], axis=1, kind="stable"),
                wanted.argsort(dim=1, descending=True, stable=True),
            )
        elif name != "own_history":
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-6)


def strongest_by_definition(
    scores: dict[str, Tensor], user: int, row: int, candidates: list[int], own: set[int]
) -> str:
    """Return the source with the fewest candidates above the item; the first among equals."""
    if row in own:
        return "own_history"
    above = {}
    for name in SOURCES:
        line = scores[name][user if len(scores[name]) > 1 else 0].to(torch.float32).tolist()
        if line[row] > 0:
            above[name] = sum(line[other] > line[row] for other in candidates)
    return min(above, key=lambda name: above[name]) if above else "new"


@pytest.mark.parametrize("rank_all_up_to", [5, 99_999])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_an_item_is_named_after_the_source_in_which_it_stands_highest(
    table: ItemTable, exclude_seen: bool, rank_all_up_to: int
) -> None:
    profiles = profiles_of(USERS, table, now_us=int(table.created_us.max()) + DAY)
    mask = np.arange(len(table)) % 7 != 2
    source = CandidateSource(rank_all_up_to=rank_all_up_to, offers=even(15))
    found = source.choose(profiles, mask, table, exclude_seen=exclude_seen)
    places = torch.stack([torch.randperm(found.allowed.shape[1])[:40] for _ in USERS])
    codes = named(source, found, profiles, table, places)
    scores, rows = source_scores(profiles, table), found.rows.expand(found.allowed.shape)
    names = set()
    for user, met in enumerate(USERS):
        for place, code in zip(places[user].tolist(), codes[user].tolist(), strict=True):
            if not found.allowed[user, place]:
                continue
            args = (user, int(rows[user, place]), rows_of(found, user), {*met.item_rows.tolist()})
            assert SOURCES[code] == strongest_by_definition(scores, *args)
            names.add(SOURCES[code])
    assert len(names) >= 4


def test_the_best_places_are_those_of_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (5, 40), generator=generator) / 3  # many equal
    scores[0, ::3], scores[1, 5], scores[2, :7] = 0.0, -0.0, -torch.inf
    scores[3] = scores[3] * 1e-30
    for k in (1, 7, 40, 99):
        wanted = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        assert torch.equal(best_places(scores, k), wanted)


@pytest.mark.parametrize("n_items", [40, 64 * 9, 64 * 9 + 1, 1_000])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_the_best_allowed_are_those_of_a_sort(n_items: int, share: float) -> None:
    generator = torch.Generator().manual_seed(n_items)
    scores = torch.randn(4, n_items, generator=generator)
    scores[3] = -scores[3].abs()  # nothing speaks for any item of this user
    allowed = torch.rand(4, n_items, generator=generator) < share
    for k in (1, 5, 30):
        found = _best(scores, allowed, k, 0.0)
        shared = _best(scores[:1], allowed, k, -torch.inf)
        for user in range(4):
            wanted = [row for row in scores[user].argsort(descending=True) if allowed[user, row]]
            positive = [int(row) for row in wanted[:k] if scores[user, row] > 0]
            assert sorted(rows_of(found, user)) == sorted(positive)
            order = scores[0].argsort(descending=True).tolist()
            same = [row for row in order if allowed[user, row]][:k]
            assert sorted(rows_of(shared, user)) == sorted(same)
