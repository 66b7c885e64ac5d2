"""Logs, histories and item tables that ranking tests draw themselves."""

import numpy as np
import torch
from torch.nn.functional import normalize

from recsys.data.interactions import MICROSECONDS_PER_DAY, History, Interactions
from recsys.ranking.item_table import ItemTable, Neighbours
from recsys.ranking.profiles import UserProfiles, read_profiles
from recsys.ranking.statistics import PERIODS
from recsys.ranking.tempo import Tempo
from recsys.schema import RELATION_KINDS

DAY = MICROSECONDS_PER_DAY
NOW = 1_000 * DAY
PURCHASE, VIEW = 0, 1
KINDS = ["purchase", "view"]

Event = tuple[int, int, float]  # item row, kind, days before NOW


def history(*events: Event) -> History:
    """Return the history of some events, which are oldest first."""
    rows, kinds, ages = zip(*events, strict=True)
    times = [round(NOW - age * DAY) for age in ages]
    return History(*(np.array(column, dtype=np.int64) for column in (rows, kinds, times)))


def interactions(
    *events: tuple[int, int, float], n_items: int = 6, kinds: list[int] | None = None
) -> Interactions:
    """Return a log of events as (user row, item row, days before NOW), in any order."""
    columns = np.array(events, dtype=np.float64).reshape(-1, 3)
    order = np.argsort(-columns[:, 2], kind="stable")
    users, items = columns[order, :2].T.astype(np.int64)
    codes = np.zeros(len(order), dtype=np.int64) if kinds is None else np.array(kinds)[order]
    return Interactions(
        user_ids=[f"u{n}" for n in range(int(users.max(initial=-1)) + 1)],
        kind_names=KINDS,
        n_items=n_items,
        user_rows=users,
        item_rows=items,
        kinds=codes,
        timestamps_us=np.round(NOW - columns[order, 2] * DAY).astype(np.int64),
        quantities=np.ones(len(order), dtype=np.float32),
    )


def item_table(n_items: int, dim: int, *, n_factors: int = 3, seed: int = 0) -> ItemTable:
    """Return a table of random values, in which some prices, ages and so on are unknown."""
    generator = torch.Generator().manual_seed(seed)

    def neighbours(width: int) -> Neighbours:
        rows = torch.stack([torch.randperm(n_items, generator=generator) for _ in range(n_items)])
        rows, weights = rows[:, :width], torch.randn(n_items, width, generator=generator)
        rows[n_items // 2], weights[n_items // 2] = -1, 0.0
        rows[1, -1], weights[1, -1] = -1, 0.0
        return Neighbours(rows, weights)

    prices = torch.log1p(1 + 99 * torch.rand(n_items, generator=generator))
    prices[[2, n_items - 5]] = torch.nan
    items = torch.arange(n_items)
    categories = torch.stack([items % 2, 2 + items % 4, 6 + items % 3], dim=1)
    categories[3, 2] = -1
    categories[-1] = -1
    created_us = NOW - items * 10 * DAY
    created_us[3] = torch.iinfo(torch.int64).min
    counts = torch.randint(0, 9, (n_items, 2 * len(PERIODS) + 1), generator=generator)
    counts = torch.log1p(counts.to(torch.float32))
    return ItemTable(
        tempo=Tempo(pause_days=6.0, window_days=20.0),
        embeddings=normalize(torch.randn(n_items, dim, generator=generator), dim=1),
        log_prices=prices,
        categories=torch.nn.functional.pad(categories, (0, 1), value=-1),
        n_categories=9,
        created_us=created_us,
        users=counts[:, : len(PERIODS)],
        buyers=counts[:, len(PERIODS) : -1],
        season_users=counts[:, -1],
        ease=neighbours(4),
        cosine=neighbours(3),
        following=neighbours(5),
        related={kind: neighbours(3) for kind in RELATION_KINDS},
        factors=torch.randn(n_items, n_factors, generator=generator),
        target_kinds=torch.tensor([True, False]),
    )


def profiles_of(
    histories: list[History],
    table: ItemTable,
    *,
    now_us: int | list[int] = NOW,
    vectors: torch.Tensor | None = None,
) -> UserProfiles:
    """Return the profiles of some users, whose vectors are those of the first items if None."""
    moments = np.broadcast_to(np.array(now_us, dtype=np.int64), (len(histories),)).copy()
    vectors = table.embeddings[: len(histories)] if vectors is None else vectors
    return read_profiles(histories, moments, table, vectors)
