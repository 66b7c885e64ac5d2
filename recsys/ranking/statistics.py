"""Statistics of each item as of one moment: popularity, season and neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Floats, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.ranking.baselines import cosine_neighbours, distinct_users, ease_weights

RECENT_DAYS = 30
SEASON_DAYS = 30  # the window after the same day one year ago
YEAR_DAYS = 365
# EASE inverts an N x N matrix, which takes seconds at this size and minutes well beyond it.
EASE_MAX_ITEMS = 10_000
SHRINKAGE = 10.0  # for item-kNN, so that pairs with few common users weigh less


@dataclass(frozen=True)
class Statistics:
    """Statistics of every item as of a moment, from the events before it.

    Args:
        as_of_us: Moment of the statistics, microseconds UTC.
        buyers: Number of distinct users of each item, (N,).
        recent_buyers: Number of distinct users over the last ``RECENT_DAYS``, (N,).
        season_buyers: Number of distinct users over the ``SEASON_DAYS`` that began one year before
            the moment, (N,).
        neighbour_rows: Items that go with each item, strongest first, (N, K); -1 pads.
        neighbour_weights: Strength of each neighbour, (N, K); 0 on pads.
    """

    as_of_us: int
    buyers: Floats
    recent_buyers: Floats
    season_buyers: Floats
    neighbour_rows: NDArray[np.int32]
    neighbour_weights: Floats


def build_statistics(
    interactions: Interactions,
    as_of_us: int,
    *,
    n_neighbours: int = 200,
    ridge: float = 200.0,
    ease_max_items: int = EASE_MAX_ITEMS,
) -> Statistics:
    """Return the statistics of all events before ``as_of_us``.

    Neighbours are the rows of EASE (Steck, 2019, https://arxiv.org/abs/1905.03375), cut to the
    largest weights. A large catalogue has the cosines of item-kNN instead.

    Args:
        interactions: Events; those at or after the moment are ignored.
        as_of_us: Moment of the statistics, microseconds UTC.
        n_neighbours: Number K of neighbours kept for each item.
        ridge: Regularisation of EASE, in numbers of users.
        ease_max_items: Largest number of items with events for which EASE is solved.
    """
    past = interactions.before(as_of_us)
    day = MICROSECONDS_PER_DAY
    season_start = as_of_us - YEAR_DAYS * day
    n_neighbours = min(n_neighbours, max(interactions.n_items - 1, 1))
    rows, weights = _neighbours(past, n_neighbours, ridge, ease_max_items)
    return Statistics(
        as_of_us=as_of_us,
        buyers=distinct_users(past),
        recent_buyers=distinct_users(past.between(as_of_us - RECENT_DAYS * day, as_of_us)),
        season_buyers=distinct_users(past.between(season_start, season_start + SEASON_DAYS * day)),
        neighbour_rows=rows,
        neighbour_weights=weights,
    )


def _neighbours(
    past: Interactions, n_neighbours: int, ridge: float, ease_max_items: int
) -> tuple[NDArray[np.int32], Floats]:
    """Return the rows (N, K) and weights (N, K) of each item's neighbours."""
    rows = np.full((past.n_items, n_neighbours), -1, dtype=np.int32)
    weights = np.zeros((past.n_items, n_neighbours), dtype=np.float32)
    known: Ints = np.unique(past.item_rows)  # items without events have no neighbours
    if len(known) < 2:
        return rows, weights
    matrix = past.matrix()[:, known]
    if len(known) <= ease_max_items:
        similarity = ease_weights(matrix, ridge=ridge)  # (n, n), from history to candidate
    else:
        near = cosine_neighbours(matrix, n_neighbours=n_neighbours, shrinkage=SHRINKAGE)
        # A transposed CSR matrix is CSC, where reading one row reads the whole matrix.
        similarity = near.T.tocsr()
    for row, (columns, line) in zip(known, entries_by_row(similarity), strict=True):
        top = np.argsort(-np.abs(line), kind="stable")[:n_neighbours]
        top = top[np.argsort(-line[top], kind="stable")]
        rows[row, : len(top)] = np.where(line[top] != 0, known[columns[top]], -1)
        weights[row, : len(top)] = line[top]
    return rows, weights


def entries_by_row(matrix: "Floats | sparse.csr_matrix") -> Iterator[tuple[Ints, Floats]]:
    """Yield the columns (C,) and values (C,) of each row.

    A sparse matrix yields the entries that it stores, a dense one all of them.
    """
    if isinstance(matrix, np.ndarray):
        everything = np.arange(matrix.shape[1])
        yield from ((everything, row) for row in matrix)
        return
    for start, end in pairwise(matrix.indptr):
        yield matrix.indices[start:end], matrix.data[start:end]
