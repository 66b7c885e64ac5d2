"""Ranking features of (history, candidates, now): one code for training and for serving."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.catalogue.store import Catalogue
from recsys.data.interactions import MICROSECONDS_PER_DAY, History
from recsys.ranking.statistics import Statistics

HISTORY_EVENTS = 1_000  # older events of a very long history are not read
SIMILAR_EVENTS = 50  # how many of the last events a candidate is compared with one by one
DECAY_DAYS = 60.0
SHORT_DECAY_DAYS = 14.0
# Of the category path: the top level and the two below it; deeper levels are rare and sparse.
SHARE_LEVELS = 3

FEATURES = (
    "user_affinity",
    "profile_similarity",
    "max_similarity",
    "last_similarity",
    "bought_together",
    "bought_together_recently",
    "own_purchases",
    "own_purchases_decayed",
    "own_interest_decayed",
    "own_recency",
    "popularity",
    "recent_popularity",
    "season_popularity",
    "trend",
    "no_events",
    "price_gap",
    "price_above_usual",
    "price_unknown",
    *(f"category_share_{level + 1}" for level in range(SHARE_LEVELS)),
    "age",
    "age_unknown",
    "history_length",
)

# What an item without any event looks like; training hides the events of some items at random.
COLD_VALUES = {
    "bought_together": 0.0,
    "bought_together_recently": 0.0,
    "own_purchases": 0.0,
    "own_purchases_decayed": 0.0,
    "own_interest_decayed": 0.0,
    "own_recency": 0.0,
    "popularity": 0.0,
    "recent_popularity": 0.0,
    "season_popularity": 0.0,
    "trend": 0.0,
    "no_events": 1.0,
}


@dataclass(frozen=True)
class ItemTable:
    """What the features read of every item; all tensors on one device.

    Args:
        embeddings: Fused item embeddings (N, D), unit length or zero.
        log_prices: Natural logarithm of 1 + price (N,), NaN where unknown.
        categories: Codes of the category path's prefixes (N, levels), -1 where it ends.
        n_categories: Number of distinct codes.
        created_us: Creation times, int64 (N,); the smallest integer where unknown.
        popularity: log(1 + distinct users) ever, in the recent window, and in the window one
            year ago, (N, 3).
        neighbour_rows: Items that go with each item, int64 (<= N, K); -1 pads. The last row is also
            that of every later item.
        neighbour_weights: How much they do (<= N, K).
        target_kinds: Which event kinds count as a purchase, bool (kinds,).
    """

    embeddings: Tensor
    log_prices: Tensor
    categories: Tensor
    n_categories: int
    created_us: Tensor
    popularity: Tensor
    neighbour_rows: Tensor
    neighbour_weights: Tensor
    target_kinds: Tensor

    def __len__(self) -> int:
        return len(self.embeddings)

    def neighbours(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the neighbours' rows (R, K), -1 for pads, and weights (R, K) of some rows (R,)."""
        stored = rows.clamp(max=len(self.neighbour_rows) - 1)
        return self.neighbour_rows[stored], self.neighbour_weights[stored]


def build_item_table(
    catalogue: Catalogue, statistics: Statistics, target_kinds: Tensor
) -> ItemTable:
    """Return the table of every item of the catalogue.

    Items that came after the statistics were taken have none: they are new.

    Args:
        catalogue: Items; its first rows are those of ``statistics``.
        statistics: As of the moment that ranking may know about.
        target_kinds: Which event kinds count as a purchase, bool (kinds,).
    """
    popularity = np.stack(
        [statistics.buyers, statistics.recent_buyers, statistics.season_buyers], axis=1
    )
    device = catalogue.embeddings.device
    neighbours = torch.tensor(statistics.neighbour_rows, dtype=torch.int64, device=device)
    weights = torch.tensor(statistics.neighbour_weights, device=device)
    return ItemTable(
        **_catalogue_columns(catalogue),
        popularity=_append(torch.tensor(np.log1p(popularity), device=device), len(catalogue)),
        # One row of pads is enough for all new items.
        neighbour_rows=F.pad(neighbours, (0, 0, 0, 1), value=-1),
        neighbour_weights=F.pad(weights, (0, 0, 0, 1)),
        target_kinds=target_kinds.to(device),
    )


def refresh_item_table(table: ItemTable, catalogue: Catalogue) -> ItemTable:
    """Return what ``build_item_table`` would, after items were added to a catalogue or replaced.

    Neighbours, by far the largest part, are those of the table and not copied.

    Args:
        table: Built or refreshed before.
        catalogue: The same catalogue as then.
    """
    return replace(
        table,
        **_catalogue_columns(catalogue),
        popularity=_append(table.popularity, len(catalogue)),
    )


def _catalogue_columns(catalogue: Catalogue) -> dict[str, Any]:
    """Return the fields of ``ItemTable`` that the catalogue alone decides."""
    device = catalogue.embeddings.device
    return {
        "embeddings": catalogue.embeddings,
        "log_prices": torch.tensor(np.log1p(catalogue.prices), device=device),
        "categories": torch.tensor(catalogue.categories, device=device),
        "n_categories": catalogue.n_categories,
        "created_us": torch.tensor(catalogue.created_us, device=device),
    }


def _append(popularity: Tensor, n_items: int) -> Tensor:
    """Return the popularity (N, 3) with that of new items, which is 0."""
    return F.pad(popularity, (0, 0, 0, n_items - len(popularity)))


def ranking_features(
    history: History, candidates: Tensor, now_us: int, table: ItemTable, user_vector: Tensor
) -> Tensor:
    """Return the features of every candidate for one user, float32 (C, F), in ``FEATURES`` order.

    Args:
        history: The user's events; those at or after ``now_us`` are ignored.
        candidates: Item rows, int64 (C,).
        now_us: The moment of the request, microseconds UTC.
        table: What is known of the items.
        user_vector: The user encoder's output for this history (D,).
    """
    device = table.embeddings.device
    past = history.timestamps_us < now_us
    rows = torch.from_numpy(history.item_rows[past][-HISTORY_EVENTS:]).to(device)  # (L,)
    kinds = torch.from_numpy(history.kinds[past][-HISTORY_EVENTS:]).to(device)
    times_us = torch.from_numpy(history.timestamps_us[past][-HISTORY_EVENTS:]).to(device)
    ages = (now_us - times_us).to(torch.float32) / MICROSECONDS_PER_DAY  # (L,)
    recency = torch.exp(-ages / DECAY_DAYS)
    bought = table.target_kinds[kinds].to(torch.float32)  # (L,)
    columns = [
        *_similarities(rows, recency, candidates, table, user_vector),
        *_bought_together(rows, ages, candidates, table),
        *_own_events(rows, ages, bought, candidates, len(table)),
        *_popularity(candidates, table),
        *_prices(rows, recency, candidates, table),
        *_category_shares(rows, recency, candidates, table),
        *_age(candidates, now_us, table),
        torch.full(candidates.shape, float(np.log1p(len(rows))), device=device),
    ]
    return torch.stack(columns, dim=1)  # (C, F)


def _similarities(
    rows: Tensor, recency: Tensor, candidates: Tensor, table: ItemTable, user_vector: Tensor
) -> list[Tensor]:
    items = table.embeddings[candidates]  # (C, D)
    affinity = items @ user_vector
    if len(rows) == 0:
        nothing = torch.zeros_like(affinity)
        return [affinity, nothing, nothing, nothing]
    profile = F.normalize((recency[:, None] * table.embeddings[rows]).sum(dim=0), dim=0)  # (D,)
    last = items @ table.embeddings[rows[-SIMILAR_EVENTS:]].T  # (C, <= SIMILAR_EVENTS)
    return [affinity, items @ profile, last.amax(dim=1), last[:, -1]]


def _bought_together(
    rows: Tensor, ages: Tensor, candidates: Tensor, table: ItemTable
) -> list[Tensor]:
    sums = []
    # Each item of the history counts once, as in EASE; the second sum forgets old ones.
    rows, latest = _distinct(rows, ages)
    neighbours, strengths = table.neighbours(rows)  # (L, K)
    for weights in (torch.ones_like(latest), torch.exp(-latest / SHORT_DECAY_DAYS)):
        spread = weights[:, None] * strengths
        total = torch.zeros(len(table), device=spread.device)
        total.index_add_(0, neighbours.clamp(min=0).ravel(), spread.ravel())  # pads weigh 0
        sums.append(total[candidates])
    return sums


def _distinct(rows: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows and the age of the latest event of each."""
    distinct, inverse = torch.unique(rows, return_inverse=True)
    latest = torch.full(distinct.shape, torch.inf, device=ages.device)
    return distinct, latest.scatter_reduce_(0, inverse, ages, reduce="amin")


def _own_events(
    rows: Tensor, ages: Tensor, bought: Tensor, candidates: Tensor, n_items: int
) -> list[Tensor]:
    decay = torch.exp(-ages / DECAY_DAYS)
    weights = torch.stack(
        [bought, bought * decay, (1 - bought) * torch.exp(-ages / SHORT_DECAY_DAYS)], dim=1
    )
    sums = torch.zeros(n_items, 3, device=rows.device).index_add_(0, rows, weights)[candidates]
    latest = torch.zeros(n_items, device=rows.device)
    latest.scatter_reduce_(0, rows, bought * decay, reduce="amax")
    return [*torch.log1p(sums).unbind(dim=1), latest[candidates]]


def _popularity(candidates: Tensor, table: ItemTable) -> list[Tensor]:
    ever, recent, season = table.popularity[candidates].unbind(dim=1)
    return [ever, recent, season, recent - ever, (ever == 0).to(ever.dtype)]


def _prices(rows: Tensor, recency: Tensor, candidates: Tensor, table: ItemTable) -> list[Tensor]:
    prices = table.log_prices[candidates]
    paid = table.log_prices[rows]
    weights = recency.masked_fill(paid.isnan(), 0.0)
    usual = (weights * paid.nan_to_num()).sum() / weights.sum().clamp(min=1e-9)
    known = ~prices.isnan() & (weights.sum() > 0)
    above = torch.where(known, prices - usual, 0.0)
    return [above.abs(), above, prices.isnan().to(prices.dtype)]


def _category_shares(
    rows: Tensor, recency: Tensor, candidates: Tensor, table: ItemTable
) -> list[Tensor]:
    shares = []
    for level in range(SHARE_LEVELS):
        own, wanted = table.categories[rows, level], table.categories[candidates, level]
        weights = recency.masked_fill(own < 0, 0.0)
        totals = torch.zeros(table.n_categories + 1, device=rows.device)
        totals.index_add_(0, own.clamp(min=0), weights)
        share = totals[wanted.clamp(min=0)] / weights.sum().clamp(min=1e-9)
        shares.append(share.masked_fill(wanted < 0, 0.0))
    return shares


def _age(candidates: Tensor, now_us: int, table: ItemTable) -> list[Tensor]:
    created_us = table.created_us[candidates]
    unknown = created_us == torch.iinfo(torch.int64).min
    # The unknown value would overflow the subtraction, so it is replaced first.
    age = (now_us - created_us.masked_fill(unknown, now_us)).clamp(min=0).to(torch.float32)
    return [torch.log1p(age / MICROSECONDS_PER_DAY), unknown.to(torch.float32)]
