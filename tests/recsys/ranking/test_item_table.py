from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.catalogue.store import Catalogue
from recsys.ranking.features import COLD_VALUES, FEATURES, ranking_features
from recsys.ranking.item_table import (
    ItemTable,
    Neighbours,
    build_item_table,
    refresh_item_table,
)
from recsys.ranking.statistics import Statistics
from recsys.ranking.tempo import Tempo
from recsys.schema import ItemSchema
from tests.recsys.ranking.planted_tables import NOW, PURCHASE, VIEW, history, profiles_of

DIM = 6


def items(*names: str, price: float) -> pl.DataFrame:
    """Items of a category of their own."""
    known = pl.DataFrame(
        {"item_id": names, "category": [[name] for name in names], "attributes": [[]] * len(names)}
    )
    known = known.with_columns(price=price, available=True)
    empty = ItemSchema.create_empty()
    return ItemSchema.cast(pl.concat([empty, known], how="diagonal_relaxed"))


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


@pytest.fixture
def statistics() -> Statistics:
    rows = np.array([[2, 1], [0, 2], [0, -1]], dtype=np.int32)
    weights = np.array([[0.5, -0.25], [1.5, 0.125], [0.75, 0]], dtype=np.float32)
    users = np.arange(15, dtype=np.float32).reshape(3, 5)
    return Statistics(
        as_of_us=NOW,
        tempo=Tempo(5.0, 30.0),
        users=users,
        buyers=users + 1,
        season_users=np.array([0, 3, 1], dtype=np.float32),
        ease_item_rows=np.arange(3, dtype=np.int32),
        ease_rows=rows,
        ease_weights=weights,
        cosine_rows=rows[:, :1],
        cosine_weights=weights[:, :1],
        next_rows=rows[:, ::-1].copy(),
        next_weights=weights[:, ::-1].copy(),
        item_factors=vectors(3, 9)[:, :4],
        related_rows=np.stack([rows, np.full_like(rows, -1), rows[::-1]]),
        related_weights=np.stack([weights, np.zeros_like(weights), weights[::-1]]),
    )


KINDS = torch.tensor([True, False])


def test_the_table_holds_the_statistics_and_the_catalogue(statistics: Statistics) -> None:
    catalogue = Catalogue(items(*"abc", price=1.0), vectors(3, 0))
    table = build_item_table(catalogue, statistics, KINDS)
    assert len(table) == 3
    assert table.tempo == statistics.tempo
    np.testing.assert_allclose(table.users, np.log1p(statistics.users))
    np.testing.assert_allclose(table.buyers, np.log1p(statistics.buyers))
    np.testing.assert_allclose(table.season_users, np.log1p(statistics.season_users))
    np.testing.assert_array_equal(table.factors, statistics.item_factors)
    np.testing.assert_allclose(table.log_prices, np.log(2.0), rtol=1e-6)
    for name, stored in (("ease", "ease"), ("cosine", "cosine"), ("following", "next")):
        rows, weights = getattr(table, name).of(torch.arange(3))
        np.testing.assert_array_equal(rows, getattr(statistics, f"{stored}_rows"), name)
        np.testing.assert_array_equal(weights, getattr(statistics, f"{stored}_weights"), name)
    assert list(table.related) == ["goes_with", "part_of"], "nothing replaces anything"
    for place, name in ((0, "goes_with"), (2, "part_of")):
        rows, weights = table.related[name].of(torch.arange(3))
        np.testing.assert_array_equal(rows, statistics.related_rows[place], name)
        np.testing.assert_array_equal(weights, statistics.related_weights[place], name)


def test_an_item_that_ease_was_not_solved_for_has_no_neighbours_by_it(
    statistics: Statistics,
) -> None:
    solved = replace(
        statistics,
        ease_item_rows=np.array([0, 2], dtype=np.int32),
        ease_rows=statistics.ease_rows[[0, 2]],
        ease_weights=statistics.ease_weights[[0, 2]],
    )
    catalogue = Catalogue(items(*"abc", price=1.0), vectors(3, 0))
    catalogue.upsert(items(*"de", price=2.0), vectors(2, 1))
    rows, weights = build_item_table(catalogue, solved, KINDS).ease.of(torch.arange(5))
    pads = [-1, -1]
    assert rows.tolist() == [[2, 1], pads, [0, -1], pads, pads]
    assert weights.tolist() == [[0.5, -0.25], [0, 0], [0.75, 0], [0, 0], [0, 0]]


def test_the_statistics_are_not_changed_by_the_table(statistics: Statistics) -> None:
    before = {field.name: np.copy(getattr(statistics, field.name)) for field in fields(Statistics)}
    table = build_item_table(Catalogue(items(*"abc", price=1.0), vectors(3, 0)), statistics, KINDS)
    for values in (table.users, table.factors, table.ease.weights):
        values.zero_()
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(statistics, name), value, name)


def values_of(table: ItemTable, name: str) -> list[Tensor]:
    value = getattr(table, name)
    if name == "related":
        return [part for neighbours in value.values() for part in neighbours if part is not None]
    parts = value if isinstance(value, tuple) else [value]
    return [torch.as_tensor(part) for part in parts if part is not None]


def test_a_refreshed_table_equals_one_built_anew(statistics: Statistics) -> None:
    catalogue = Catalogue(items(*"abc", price=1.0), vectors(3, 0))
    table = build_item_table(catalogue, statistics, KINDS)
    for seed, names in enumerate(("b", "d", "efghi", "aj", "d"), start=1):
        catalogue.upsert(items(*names, price=float(seed)), vectors(len(names), seed))
        refreshed = refresh_item_table(table, catalogue)
        built = build_item_table(catalogue, statistics, KINDS)
        for field in fields(ItemTable):
            pairs = zip(values_of(refreshed, field.name), values_of(built, field.name), strict=True)
            assert all(torch.equal(found, wanted) for found, wanted in pairs), field.name
        for name in ("ease", "cosine", "following", "related"):
            assert getattr(refreshed, name) is getattr(table, name), "what is large is not copied"
        table = refreshed


def test_an_item_newer_than_the_statistics_counts_as_cold(statistics: Statistics) -> None:
    catalogue = Catalogue(items(*"abc", price=1.0), vectors(3, 0))
    catalogue.upsert(items(*"de", price=2.0), vectors(2, 1))
    table = build_item_table(catalogue, statistics, KINDS)
    met = history((0, PURCHASE, 9.0), (1, VIEW, 3.0), (2, PURCHASE, 1.0))
    found = ranking_features(profiles_of([met], table), torch.arange(5), table)[0]
    for name, value in COLD_VALUES.items():
        assert found[3:, FEATURES.index(name)].tolist() == [value] * 2, name
    assert found[:3, FEATURES.index("ease")].all()
    related = found[:, FEATURES.index("related_goes_with")]
    assert related[:3].all(), "the table of relations knows these"
    assert not related[3:].any(), "and not these"


def test_events_of_a_new_item_say_nothing_of_the_other_items(statistics: Statistics) -> None:
    catalogue = Catalogue(items(*"abc", price=1.0), vectors(3, 0))
    catalogue.upsert(items(*"de", price=2.0), vectors(2, 1))
    table = build_item_table(catalogue, statistics, KINDS)
    users = [history((1, PURCHASE, 2.0), (4, PURCHASE, 2.0)), history((1, PURCHASE, 2.0))]
    scores = profiles_of(users, table).scores
    for name, values in scores.items():
        torch.testing.assert_close(values[0], values[1], msg=name)
        assert values[0].any(), name


def spread_by_loops(
    neighbours: Neighbours, users: Tensor, rows: Tensor, weights: Tensor, shape: tuple[int, int]
) -> Tensor:
    sums = torch.zeros(len(weights), *shape)
    for event, (user, row) in enumerate(zip(users.tolist(), rows.tolist(), strict=True)):
        stored = min(row, len(neighbours.rows) - 1)
        for near, strength in zip(
            neighbours.rows[stored].tolist(), neighbours.weights[stored].tolist(), strict=True
        ):
            if near >= 0:
                sums[:, user, near] += weights[:, event] * strength
    return sums


@pytest.mark.parametrize("at_once", [1, 7, 8_000])
def test_spreading_equals_its_definition(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.ranking.item_table.SPREAD_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-1, 9, (8, 3), generator=generator)
    rows[7] = -1  # what all later items share
    strengths = torch.randn(8, 3, generator=generator).masked_fill(rows < 0, 0.0)
    neighbours = Neighbours(rows, strengths)
    users = torch.randint(0, 4, (30,), generator=generator)
    events = torch.randint(0, 9, (30,), generator=generator)
    weights = torch.rand(2, 30, generator=generator)
    found = neighbours.spread(users, events, weights, (5, 9))
    assert found.shape == (2, 5, 9)
    wanted = spread_by_loops(neighbours, users, events, weights, (5, 9))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert not found[:, 4].any(), "this user has no event"


def test_without_events_nothing_is_spread() -> None:
    neighbours = Neighbours(torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 2))
    nothing = torch.empty(0, dtype=torch.int64)
    found = neighbours.spread(nothing, nothing, torch.empty(1, 0), (2, 3))
    assert found.tolist() == [[[0.0] * 3] * 2]
