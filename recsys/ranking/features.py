"""Ranking features of candidates for users, by the same code in training and in serving."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.catalogue.store import Catalogue
from recsys.data.interactions import MICROSECONDS_PER_DAY, History
from recsys.ranking.statistics import Statistics
from recsys.ranking.user_events import UserEvents, collect_events

DECAY_DAYS = 60.0
SHORT_DECAY_DAYS = 14.0
# Levels of the category path with a feature; deeper levels are rare.
SHARE_LEVELS = 3
SPREAD_AT_ONCE = 8_000  # events whose neighbours are in memory at once

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

# Features of an item without events; training hides the events of some items at random.
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
    """Values of every item that the features read, on one device.

    Args:
        embeddings: Fused item embeddings (N, D), unit length or zero.
        log_prices: Natural logarithm of 1 + price (N,), NaN where unknown.
        categories: Codes of the category path's prefixes (N, levels), -1 where it ends.
        n_categories: Number of distinct codes.
        created_us: Creation times, int64 (N,); the smallest integer where unknown.
        popularity: log(1 + distinct users) ever, in the recent window, and in the window one
            year ago, (N, 3).
        neighbour_rows: Items that go with each item, int64 (<= N, K); -1 pads. All later items
            share the last row.
        neighbour_weights: Strength of each neighbour (<= N, K).
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
        """Return the neighbours (R, K), padded with -1, and their weights (R, K), of rows (R,)."""
        stored = rows.clamp(max=len(self.neighbour_rows) - 1)
        return self.neighbour_rows[stored], self.neighbour_weights[stored]


def build_item_table(
    catalogue: Catalogue, statistics: Statistics, target_kinds: Tensor
) -> ItemTable:
    """Return the table of every item of the catalogue.

    Items that are newer than the statistics count as items without events.

    Args:
        catalogue: Catalogue whose first rows are those of ``statistics``.
        statistics: Statistics as of the latest moment that ranking may know about.
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
    """Return the table again after items were added or replaced, as ``build_item_table`` would.

    The neighbours, by far the largest part, are shared with the old table.

    Args:
        table: Table that was built or refreshed before.
        catalogue: Catalogue that the table was built from.
    """
    return replace(
        table,
        **_catalogue_columns(catalogue),
        popularity=_append(table.popularity, len(catalogue)),
    )


def _catalogue_columns(catalogue: Catalogue) -> dict[str, Any]:
    """Return the fields of ``ItemTable`` that depend on the catalogue alone."""
    device = catalogue.embeddings.device
    return {
        "embeddings": catalogue.embeddings,
        "log_prices": torch.tensor(np.log1p(catalogue.prices), device=device),
        "categories": torch.tensor(catalogue.categories, device=device),
        "n_categories": catalogue.n_categories,
        "created_us": torch.tensor(catalogue.created_us, device=device),
    }


def _append(popularity: Tensor, n_items: int) -> Tensor:
    """Return the popularity (N, 3) with zeros for new items."""
    return F.pad(popularity, (0, 0, 0, n_items - len(popularity)))


def ranking_features(
    histories: Sequence[History],
    candidates: Tensor,
    now_us: int,
    table: ItemTable,
    user_vectors: Tensor,
    spread_at_once: int = SPREAD_AT_ONCE,
) -> Tensor:
    """Return the features of every candidate of every user, float32 (B, C, F).

    The last dimension is in the order of ``FEATURES``. The features of a user do not depend on the
    other users of the batch.

    Args:
        histories: Events of each user (B entries); those at or after ``now_us`` are ignored.
        candidates: Item rows, int64 (B, C), or (C,) where all users have the same.
        now_us: Moment of the request, microseconds UTC.
        table: Values of every item.
        user_vectors: Output of the user encoder for the histories (B, D).
        spread_at_once: Number of events whose neighbours are held in memory at once.
    """
    events = collect_events(histories, now_us, table.embeddings.device)
    recency = torch.exp(-events.ages_days / DECAY_DAYS)  # (E,)
    columns = [
        *_similarities(events, recency, candidates, table, user_vectors),
        *_bought_together(events, candidates, table, spread_at_once),
        *_own_events(events, recency, candidates, table),
        *_popularity(candidates, table),
        *_prices(events, recency, candidates, table),
        *_category_shares(events, recency, candidates, table),
        *_age(candidates, now_us, table),
        torch.log1p(events.counts)[:, None],
    ]
    shape = (len(histories), candidates.shape[-1])
    return torch.stack([column.expand(shape) for column in columns], dim=2)  # (B, C, F)


def _at(values: Tensor, candidates: Tensor) -> Tensor:
    """Return the values (B, N) of each user's candidates, (B, C)."""
    return values[:, candidates] if candidates.dim() == 1 else values.gather(1, candidates)


def _similarities(
    events: UserEvents, recency: Tensor, candidates: Tensor, table: ItemTable, user_vectors: Tensor
) -> list[Tensor]:
    profiles = events.sum_by_user(recency[:, None] * table.embeddings[events.rows])  # (B, D)
    latest = table.embeddings[events.latest.clamp(min=0)]  # (B, S, D)
    vectors = torch.cat(
        [user_vectors[:, None], F.normalize(profiles, dim=1)[:, None], latest], dim=1
    )  # (B, 2 + S, D)
    similarity = vectors @ table.embeddings[candidates].mT  # (B, 2 + S, C)
    affinity, profile, last = similarity[:, 0], similarity[:, 1], similarity[:, 2:]
    if events.latest.shape[1] == 0:
        return [affinity, profile, torch.zeros_like(affinity), torch.zeros_like(affinity)]
    pads = events.latest[:, :, None] < 0
    newcomer = events.counts[:, None] == 0
    highest = last.masked_fill(pads, -torch.inf).amax(dim=1)
    return [
        affinity,
        profile,
        highest.masked_fill(newcomer, 0.0),
        last[:, -1].masked_fill(newcomer, 0.0),
    ]


def _bought_together(
    events: UserEvents, candidates: Tensor, table: ItemTable, spread_at_once: int
) -> list[Tensor]:
    # Each item of a history counts once, as in EASE; the second sum forgets old ones.
    codes, inverse = torch.unique(events.users * len(table) + events.rows, return_inverse=True)
    latest = torch.full(codes.shape, torch.inf, device=codes.device)
    latest.scatter_reduce_(0, inverse, events.ages_days, reduce="amin")
    users, rows = codes // len(table), codes % len(table)
    fading = torch.exp(-latest / SHORT_DECAY_DAYS)
    sums = torch.zeros(2, len(events.counts) * len(table), device=codes.device)
    for start in range(0, len(codes), spread_at_once):
        some = slice(start, start + spread_at_once)
        neighbours, strengths = table.neighbours(rows[some])  # (<= spread_at_once, K)
        # Pads weigh 0, so that it does not matter where they are added.
        places = (users[some, None] * len(table) + neighbours.clamp(min=0)).ravel()
        sums[0].index_add_(0, places, strengths.ravel())
        sums[1].index_add_(0, places, (fading[some, None] * strengths).ravel())
    return [_at(one.view(-1, len(table)), candidates) for one in sums]


def _own_events(
    events: UserEvents, recency: Tensor, candidates: Tensor, table: ItemTable
) -> list[Tensor]:
    bought = table.target_kinds[events.kinds].to(torch.float32)  # (E,)
    interest = (1 - bought) * torch.exp(-events.ages_days / SHORT_DECAY_DAYS)
    places = events.users * len(table) + events.rows
    totals = torch.zeros(4, len(events.counts) * len(table), device=places.device)
    for total, weights in zip(totals, (bought, bought * recency, interest), strict=False):
        total.index_add_(0, places, weights)
    totals[3].scatter_reduce_(0, places, bought * recency, reduce="amax")
    *sums, latest = (_at(total.view(-1, len(table)), candidates) for total in totals)
    return [*(torch.log1p(one) for one in sums), latest]


def _popularity(candidates: Tensor, table: ItemTable) -> list[Tensor]:
    ever, recent, season = table.popularity[candidates].unbind(dim=-1)
    return [ever, recent, season, recent - ever, (ever == 0).to(ever.dtype)]


def _prices(
    events: UserEvents, recency: Tensor, candidates: Tensor, table: ItemTable
) -> list[Tensor]:
    prices = table.log_prices[candidates]
    paid = table.log_prices[events.rows]
    weights = recency.masked_fill(paid.isnan(), 0.0)
    total = events.sum_by_user(weights)[:, None]  # (B, 1)
    usual = events.sum_by_user(weights * paid.nan_to_num())[:, None] / total.clamp(min=1e-9)
    known = ~prices.isnan() & (total > 0)
    above = torch.where(known, prices - usual, 0.0)
    return [above.abs(), above, prices.isnan().to(prices.dtype)]


def _category_shares(
    events: UserEvents, recency: Tensor, candidates: Tensor, table: ItemTable
) -> list[Tensor]:
    shares = []
    n_codes = table.n_categories + 1
    for level in range(SHARE_LEVELS):
        own, wanted = table.categories[events.rows, level], table.categories[candidates, level]
        weights = recency.masked_fill(own < 0, 0.0)
        totals = torch.zeros(len(events.counts) * n_codes, device=own.device)
        totals.index_add_(0, events.users * n_codes + own.clamp(min=0), weights)
        shares_of_codes = totals.view(-1, n_codes) / events.sum_by_user(weights)[:, None].clamp(
            min=1e-9
        )
        share = _at(shares_of_codes, wanted.clamp(min=0))
        shares.append(share.masked_fill(wanted < 0, 0.0))
    return shares


def _age(candidates: Tensor, now_us: int, table: ItemTable) -> list[Tensor]:
    created_us = table.created_us[candidates]
    unknown = created_us == torch.iinfo(torch.int64).min
    # The unknown value would overflow the subtraction, so it is replaced first.
    age = (now_us - created_us.masked_fill(unknown, now_us)).clamp(min=0).to(torch.float32)
    return [torch.log1p(age / MICROSECONDS_PER_DAY), unknown.to(torch.float32)]
