"""What ranking knows of every item of a live catalogue, as tensors on one device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recsys.catalogue.store import Catalogue
from recsys.data.arrays import Floats
from recsys.ranking.statistics import Statistics
from recsys.ranking.tempo import Tempo
from recsys.schema import RELATION_KINDS

SPREAD_AT_ONCE = 8_000  # events whose neighbours are in memory at once


class Neighbours(NamedTuple):
    """Items that go with each item, strongest first.

    Args:
        rows: Item rows, int64 (M, K); -1 pads.
        weights: Strength of each neighbour (M, K); 0 on pads.
        places: Which of the M each item has, int64 (<= N,); None is its own. All later items share
            the last.
    """

    rows: Tensor
    weights: Tensor
    places: Tensor | None = None

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the neighbours (R, K), padded with -1, and their weights (R, K), of rows (R,)."""
        if self.places is None:
            stored = rows.clamp(max=len(self.rows) - 1)
        else:
            stored = self.places[rows.clamp(max=len(self.places) - 1)]
        return self.rows[stored], self.weights[stored]

    def spread(
        self, users: Tensor, rows: Tensor, weights: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        """Return for each user the weighted sum of the neighbours of some items (V, B, N).

        Args:
            users: User of each item, int64 (R,).
            rows: Item rows, int64 (R,).
            weights: V weights of each item (V, R).
            shape: Numbers of users and items, (B, N).
        """
        n_users, n_items = shape
        sums = torch.zeros(len(weights), n_users * n_items, device=rows.device)
        for start in range(0, len(rows), SPREAD_AT_ONCE):
            some = slice(start, start + SPREAD_AT_ONCE)
            neighbours, strengths = self.of(rows[some])  # (<= SPREAD_AT_ONCE, K)
            # Pads weigh 0, so that it does not matter where they are added.
            places = (users[some, None] * n_items + neighbours.clamp(min=0)).ravel()
            for into, weight in zip(sums, weights, strict=True):
                into.index_add_(0, places, (weight[some, None] * strengths).ravel())
        return sums.view(-1, n_users, n_items)


@dataclass(frozen=True)
class ItemTable:
    """Values of every item that the features read, on one device.

    Args:
        tempo: Time scales of the log.
        embeddings: Fused item embeddings (N, D), unit length or zero.
        log_prices: Natural logarithm of 1 + price (N,), NaN where unknown.
        categories: Codes of the category path's prefixes (N, levels), -1 where it ends.
        n_categories: Number of distinct codes.
        created_us: Creation times, int64 (N,); the smallest integer where unknown.
        users: log(1 + distinct users) in each period of ``PERIODS`` (N, P).
        buyers: The same for events of the target kinds (N, P).
        season_users: log(1 + distinct users) in the window one year ago (N,).
        ease: Neighbours by EASE.
        cosine: Neighbours by the cosine of item-kNN.
        following: Items of the next visit.
        related: Related items by the kind of relation; a kind without relations is absent.
        factors: Item factors of iALS (N, Df).
        target_kinds: Which event kinds count as a purchase, bool (kinds,).
    """

    tempo: Tempo
    embeddings: Tensor
    log_prices: Tensor
    categories: Tensor
    n_categories: int
    created_us: Tensor
    users: Tensor
    buyers: Tensor
    season_users: Tensor
    ease: Neighbours
    cosine: Neighbours
    following: Neighbours
    related: Mapping[str, Neighbours]
    factors: Tensor
    target_kinds: Tensor

    def __len__(self) -> int:
        return len(self.embeddings)

    @cached_property
    def factor_gram(self) -> Tensor:
        """Products of all pairs of factors (Df, Df), which every request needs."""
        return self.factors.T @ self.factors

    @cached_property
    def popularity(self) -> Tensor:
        """How popular items are lately, and among equals ever (N,)."""
        return self.users[:, -1] + 1e-3 * self.users[:, 0]


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
    device = catalogue.embeddings.device

    def neighbours(stored: NDArray[np.int32], strengths: Floats) -> Neighbours:
        rows = torch.tensor(stored, dtype=torch.int64, device=device)
        weights = torch.tensor(strengths, device=device)
        # One row of pads is enough for all new items.
        return Neighbours(F.pad(rows, (0, 0, 0, 1), value=-1), F.pad(weights, (0, 0, 0, 1)))

    n_solved = len(statistics.ease_item_rows)
    places = torch.full((len(statistics.users) + 1,), n_solved, device=device)  # the row of pads
    solved = torch.tensor(statistics.ease_item_rows, dtype=torch.int64, device=device)
    places[solved] = torch.arange(n_solved, device=device)

    def counts(values: Any) -> Tensor:
        return _append(torch.tensor(np.log1p(values), device=device), len(catalogue))

    return ItemTable(
        **_catalogue_columns(catalogue),
        tempo=statistics.tempo,
        users=counts(statistics.users),
        buyers=counts(statistics.buyers),
        season_users=counts(statistics.season_users),
        ease=neighbours(statistics.ease_rows, statistics.ease_weights)._replace(places=places),
        cosine=neighbours(statistics.cosine_rows, statistics.cosine_weights),
        following=neighbours(statistics.next_rows, statistics.next_weights),
        related={
            kind: neighbours(rows, weights)
            for kind, rows, weights in zip(RELATION_KINDS, *statistics.related, strict=True)
            if (rows >= 0).any()
        },
        factors=_append(torch.tensor(statistics.item_factors, device=device), len(catalogue)),
        target_kinds=target_kinds.to(device),
    )


def refresh_item_table(table: ItemTable, catalogue: Catalogue) -> ItemTable:
    """Return the table again after items were added or replaced, as ``build_item_table`` would.

    The neighbours, by far the largest part, are shared with the old table.

    Args:
        table: Table that was built or refreshed before.
        catalogue: Catalogue that the table was built from.
    """
    grown: dict[str, Any] = {
        name: _append(getattr(table, name), len(catalogue))
        for name in ("users", "buyers", "season_users", "factors")
    }
    return replace(table, **_catalogue_columns(catalogue), **grown)


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


def _append(values: Tensor, n_items: int) -> Tensor:
    """Return the values (N, ...) with zeros for new items."""
    return F.pad(values, (0, 0) * (values.dim() - 1) + (0, n_items - len(values)))
