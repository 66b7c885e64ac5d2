import math
from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest
import torch

from recsys.catalogue.store import Catalogue
from recsys.data.interactions import EMPTY_HISTORY, MICROSECONDS_PER_DAY, History
from recsys.ranking.features import (
    COLD_VALUES,
    DECAY_DAYS,
    FEATURES,
    SHORT_DECAY_DAYS,
    ItemTable,
    build_item_table,
    ranking_features,
    refresh_item_table,
)
from recsys.ranking.statistics import Statistics
from recsys.schema import ItemSchema

DAY = MICROSECONDS_PER_DAY
NOW = 1_000 * DAY
N_ITEMS, DIM = 12, 6
PURCHASE, VIEW = 0, 1


@pytest.fixture
def table() -> ItemTable:
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(N_ITEMS, DIM)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    prices = generator.uniform(1, 100, N_ITEMS).astype(np.float32)
    prices[[2, 7]] = np.nan
    neighbour_rows = generator.integers(0, N_ITEMS, (N_ITEMS, 4))
    neighbour_rows[5] = -1
    neighbour_weights = generator.normal(size=(N_ITEMS, 4)).astype(np.float32)
    neighbour_weights[5] = 0
    categories = np.stack([np.arange(N_ITEMS) % 2, 2 + np.arange(N_ITEMS) % 4], axis=1)
    categories = np.pad(categories, ((0, 0), (0, 2)), constant_values=-1)
    created_us = NOW - np.arange(N_ITEMS) * 10 * DAY
    created_us[3] = np.iinfo(np.int64).min
    return ItemTable(
        embeddings=torch.from_numpy(embeddings),
        log_prices=torch.from_numpy(np.log1p(prices)),
        categories=torch.from_numpy(categories.astype(np.int64)),
        n_categories=6,
        created_us=torch.from_numpy(created_us.astype(np.int64)),
        popularity=torch.from_numpy(np.log1p(generator.integers(0, 9, (N_ITEMS, 3))).astype("f4")),
        neighbour_rows=torch.from_numpy(neighbour_rows.astype(np.int64)),
        neighbour_weights=torch.from_numpy(neighbour_weights),
        target_kinds=torch.tensor([True, False]),
    )


@pytest.fixture
def user_vector() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.arange(1.0, DIM + 1), dim=0)


def history(*events: tuple[int, int, float]) -> History:
    """Events as (item row, kind, days before NOW), oldest first."""
    rows, kinds, ages = zip(*events, strict=True)
    times = [round(NOW - age * DAY) for age in ages]
    return History(*(np.array(column, dtype=np.int64) for column in (rows, kinds, times)))


EVENTS = [
    (5, PURCHASE, 200.0),
    (1, VIEW, 40.0),
    (2, PURCHASE, 30.0),
    (1, PURCHASE, 8.0),
    (4, VIEW, 1.0),
]


def features_of(
    met: History, candidates: torch.Tensor, table: ItemTable, user_vector: torch.Tensor
) -> torch.Tensor:
    """Return the features of each candidate (C, F) for one user alone."""
    return ranking_features([met], candidates, NOW, table, user_vector[None])[0]


def by_definition(table: ItemTable, user_vector: torch.Tensor, item: int) -> dict[str, float]:
    """Every feature of one candidate, as loops over the history."""
    vector = table.embeddings.double().numpy()
    wanted = dict.fromkeys(FEATURES, 0.0)
    wanted["user_affinity"] = float(vector[item] @ user_vector.double().numpy())
    profile = sum(math.exp(-age / DECAY_DAYS) * vector[row] for row, _, age in EVENTS)
    wanted["profile_similarity"] = float(vector[item] @ profile / np.linalg.norm(profile))
    wanted["max_similarity"] = max(float(vector[item] @ vector[row]) for row, _, _ in EVENTS)
    wanted["last_similarity"] = float(vector[item] @ vector[EVENTS[-1][0]])
    latest = {row: age for row, _, age in EVENTS}  # the last of each item wins
    for row, age in latest.items():
        for near, weight in zip(
            table.neighbour_rows[row], table.neighbour_weights[row], strict=True
        ):
            if int(near) == item:
                wanted["bought_together"] += float(weight)
                wanted["bought_together_recently"] += float(weight) * math.exp(
                    -age / SHORT_DECAY_DAYS
                )
    bought = [age for row, kind, age in EVENTS if row == item and kind == PURCHASE]
    seen = [age for row, kind, age in EVENTS if row == item and kind == VIEW]
    wanted["own_purchases"] = math.log1p(len(bought))
    wanted["own_purchases_decayed"] = math.log1p(sum(math.exp(-a / DECAY_DAYS) for a in bought))
    wanted["own_interest_decayed"] = math.log1p(sum(math.exp(-a / SHORT_DECAY_DAYS) for a in seen))
    wanted["own_recency"] = max((math.exp(-age / DECAY_DAYS) for age in bought), default=0.0)
    ever, recent, season = table.popularity[item].tolist()
    wanted |= {"popularity": ever, "recent_popularity": recent, "season_popularity": season}
    wanted |= {"trend": recent - ever, "no_events": float(ever == 0)}
    prices = table.log_prices.tolist()
    paid = [(math.exp(-age / DECAY_DAYS), prices[row]) for row, _, age in EVENTS]
    paid = [(weight, price) for weight, price in paid if not math.isnan(price)]
    usual = sum(w * p for w, p in paid) / sum(w for w, _ in paid)
    wanted["price_unknown"] = float(math.isnan(prices[item]))
    if not math.isnan(prices[item]):
        wanted["price_above_usual"] = prices[item] - usual
        wanted["price_gap"] = abs(prices[item] - usual)
    for level in range(2):
        code = int(table.categories[item, level])
        shares = [
            (math.exp(-a / DECAY_DAYS), int(table.categories[r, level])) for r, _, a in EVENTS
        ]
        share = sum(w for w, c in shares if c == code) / sum(w for w, _ in shares)
        wanted[f"category_share_{level + 1}"] = share
    wanted["age"] = math.log1p(0.0 if item == 3 else 10.0 * item)
    wanted["age_unknown"] = float(item == 3)
    wanted["history_length"] = math.log1p(len(EVENTS))
    return wanted


@pytest.mark.parametrize("item", range(N_ITEMS))
def test_every_feature_equals_its_definition(
    table: ItemTable, user_vector: torch.Tensor, item: int
) -> None:
    found = features_of(history(*EVENTS), torch.tensor([item]), table, user_vector)[0]
    wanted = by_definition(table, user_vector, item)
    for name, value in zip(FEATURES, found.tolist(), strict=True):
        assert value == pytest.approx(wanted[name], abs=1e-5), name


def test_the_features_of_a_candidate_do_not_depend_on_the_others(
    table: ItemTable, user_vector: torch.Tensor
) -> None:
    everything = torch.arange(N_ITEMS)
    whole = features_of(history(*EVENTS), everything, table, user_vector)
    part = features_of(history(*EVENTS), torch.tensor([7, 2]), table, user_vector)
    assert torch.allclose(part, whole[[7, 2]], atol=1e-6)


USERS = [
    history(*EVENTS),
    EMPTY_HISTORY,
    history((9, PURCHASE, 3.0), (9, PURCHASE, 2.0), (3, VIEW, -1.0)),
    history(*((n * 7 % N_ITEMS, n % 2, 400.0 - n) for n in range(130))),
]


@pytest.mark.parametrize("spread_at_once", [1, 3, 8_000])
def test_users_together_have_the_features_that_each_has_alone(
    table: ItemTable, spread_at_once: int
) -> None:
    vectors_of = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))
    everything = torch.arange(N_ITEMS)
    found = ranking_features(USERS, everything, NOW, table, vectors_of, spread_at_once)
    for user, met in enumerate(USERS):
        alone = features_of(met, everything, table, vectors_of[user])
        torch.testing.assert_close(found[user], alone, atol=1e-6, rtol=1e-5)


def test_each_user_may_have_candidates_of_their_own(table: ItemTable) -> None:
    vectors_of = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([[3, 9, 0], [5, 5, 1], [9, 3, 2], [11, 0, 7]])
    found = ranking_features(USERS, own, NOW, table, vectors_of)
    for user, met in enumerate(USERS):
        alone = features_of(met, own[user], table, vectors_of[user])
        torch.testing.assert_close(found[user], alone, atol=1e-6, rtol=1e-5)


def test_events_at_or_after_now_are_ignored(table: ItemTable, user_vector: torch.Tensor) -> None:
    later = history(*EVENTS, (9, PURCHASE, 0.0), (3, PURCHASE, -5.0))
    everything = torch.arange(N_ITEMS)
    assert torch.equal(
        features_of(later, everything, table, user_vector),
        features_of(history(*EVENTS), everything, table, user_vector),
    )


def test_a_newcomer_has_finite_features(table: ItemTable, user_vector: torch.Tensor) -> None:
    found = features_of(EMPTY_HISTORY, torch.arange(N_ITEMS), table, user_vector)
    assert found.isfinite().all()
    assert (found[:, FEATURES.index("own_purchases")] == 0).all()


def test_an_item_without_events_has_the_values_that_training_hides_with(
    table: ItemTable, user_vector: torch.Tensor
) -> None:
    table.popularity[8] = 0
    table.neighbour_rows[table.neighbour_rows == 8] = 0
    found = features_of(history(*EVENTS), torch.tensor([8]), table, user_vector)[0]
    for name, value in COLD_VALUES.items():
        assert found[FEATURES.index(name)] == value, name


def items(*names: str, price: float) -> pl.DataFrame:
    """Items of a category of their own."""
    known = pl.DataFrame(
        {"item_id": names, "category": [[name] for name in names], "attributes": [[]] * len(names)}
    )
    known = known.with_columns(price=price, available=True)
    empty = ItemSchema.create_empty()
    return ItemSchema.cast(pl.concat([empty, known], how="diagonal_relaxed"))


@pytest.fixture
def statistics() -> Statistics:
    return Statistics(
        as_of_us=NOW,
        buyers=np.array([3, 0, 5], dtype=np.float32),
        recent_buyers=np.array([1, 0, 2], dtype=np.float32),
        season_buyers=np.array([0, 0, 1], dtype=np.float32),
        neighbour_rows=np.array([[2, 1], [0, 2], [0, -1]], dtype=np.int32),
        neighbour_weights=np.array([[0.5, -0.25], [1.5, 0.125], [0.75, 0]], dtype=np.float32),
    )


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def test_a_refreshed_table_equals_one_built_anew(statistics: Statistics) -> None:
    catalogue, kinds = Catalogue(items(*"abc", price=1.0), vectors(3, 0)), torch.tensor([True])
    table = build_item_table(catalogue, statistics, kinds)
    for seed, names in enumerate(("b", "d", "efghi", "aj", "d"), start=1):
        catalogue.upsert(items(*names, price=float(seed)), vectors(len(names), seed))
        refreshed = refresh_item_table(table, catalogue)
        built = build_item_table(catalogue, statistics, kinds)
        for field in fields(ItemTable):
            found, wanted = (getattr(one, field.name) for one in (refreshed, built))
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted)), field.name
        assert refreshed.neighbour_rows is table.neighbour_rows, "what is large is not copied"
        assert refreshed.neighbour_weights is table.neighbour_weights
        table = refreshed


def test_an_item_newer_than_the_statistics_has_no_neighbours(
    statistics: Statistics, user_vector: torch.Tensor
) -> None:
    catalogue = Catalogue(items(*"abc", price=1.0), vectors(3, 0))
    table = build_item_table(catalogue, statistics, torch.tensor([True]))
    catalogue.upsert(items(*"de", price=2.0), vectors(2, 1))
    table = refresh_item_table(table, catalogue)
    padded = replace(
        table,
        neighbour_rows=torch.tensor([*statistics.neighbour_rows.tolist(), [-1, -1], [-1, -1]]),
        neighbour_weights=torch.tensor([*statistics.neighbour_weights.tolist(), [0, 0], [0, 0]]),
    )
    met = history((0, PURCHASE, 9.0), (4, PURCHASE, 3.0), (3, PURCHASE, 2.0), (2, PURCHASE, 1.0))
    found, wanted = (features_of(met, torch.arange(5), one, user_vector) for one in (table, padded))
    assert torch.equal(found, wanted)
    assert table.neighbours(torch.tensor([4, 1]))[0].tolist() == [[-1, -1], [0, 2]]
