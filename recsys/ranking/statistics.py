"""What the events say about each item as of one moment: popularity, season, neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Floats, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.ranking.baselines import cosine_neighbours, ease_weights

RECENT_DAYS = 30
SEASON_DAYS = 30  # the window after the same day one year ago
YEAR_DAYS = 365
# EASE inverts an N x N matrix: seconds at this size, minutes and gigabytes well beyond it.
EASE_MAX_ITEMS = 10_000
SHRINKAGE = 10.0  # of item-kNN: pairs with few common users count less


@dataclass(frozen=True)
class Statistics:
    """Per-item statistics as of a moment; no event at or after it has been read.

    Args:
        as_of_us: The moment, microseconds UTC.
        buyers: Distinct users of the item, (N,).
        recent_buyers: The same over the last ``RECENT_DAYS``, (N,).
        season_buyers: The same over the ``SEASON_DAYS`` that followed one year ago, (N,).
        neighbour_rows: Items that go with each item, strongest first, (N, K); -1 pads.
        neighbour_weights: How much they do, (N, K); 0 on pads.
    """

    as_of_us: int
    buyers: Floats
    recent_buyers: Floats
    season_buyers: Floats
    neighbour_rows: NDArray[np.int32]
    neighbour_weights: Floats


def build_statistics(
    interactions: Interactions, as_of_us: int, *, n_neighbours: int = 200, ridge: float = 200.0
) -> Statistics:
    """Return the statistics of all events before ``as_of_us``.

    Neighbours are the rows of EASE (Steck, 2019, https://arxiv.org/abs/1905.03375), cut to the
    largest weights; above ``EASE_MAX_ITEMS`` items they are item-kNN cosines.

    Args:
        interactions: Events; later ones are ignored.
        as_of_us: The moment, microseconds UTC.
        n_neighbours: Neighbours kept for each item K.
        ridge: EASE's regularisation, in users.
    """
    past = interactions.before(as_of_us)
    day = MICROSECONDS_PER_DAY
    season_start = as_of_us - YEAR_DAYS * day
    n_neighbours = min(n_neighbours, max(interactions.n_items - 1, 1))
    rows, weights = _neighbours(past, n_neighbours, ridge)
    return Statistics(
        as_of_us=as_of_us,
        buyers=_distinct_users(past),
        recent_buyers=_distinct_users(past.between(as_of_us - RECENT_DAYS * day, as_of_us)),
        season_buyers=_distinct_users(past.between(season_start, season_start + SEASON_DAYS * day)),
        neighbour_rows=rows,
        neighbour_weights=weights,
    )


def _distinct_users(interactions: Interactions) -> Floats:
    return np.asarray(interactions.matrix().sum(axis=0), dtype=np.float32).ravel()


def _neighbours(
    past: Interactions, n_neighbours: int, ridge: float
) -> tuple[NDArray[np.int32], Floats]:
    """Return the rows (N, K) and weights (N, K) of each item's neighbours."""
    rows = np.full((past.n_items, n_neighbours), -1, dtype=np.int32)
    weights = np.zeros((past.n_items, n_neighbours), dtype=np.float32)
    known: Ints = np.unique(past.item_rows)  # items without events have no neighbours
    if len(known) < 2:
        return rows, weights
    matrix = past.matrix()[:, known]
    if len(known) <= EASE_MAX_ITEMS:
        similarity = ease_weights(matrix, ridge=ridge)  # (n, n), from history to candidate
    else:
        near = cosine_neighbours(matrix, n_neighbours=n_neighbours, shrinkage=SHRINKAGE)
        # A transposed CSR matrix is CSC, of which taking a row reads everything.
        similarity = near.T.tocsr()
    for row, (columns, line) in zip(known, _lines(similarity), strict=True):
        top = np.argsort(-np.abs(line), kind="stable")[:n_neighbours]
        top = top[np.argsort(-line[top], kind="stable")]
        rows[row, : len(top)] = np.where(line[top] != 0, known[columns[top]], -1)
        weights[row, : len(top)] = line[top]
    return rows, weights


def _lines(similarity: "Floats | sparse.csr_matrix") -> Iterator[tuple[Ints, Floats]]:
    """Yield the columns (C,) and values (C,) of each row; of a sparse one, those that it stores."""
    if isinstance(similarity, np.ndarray):
        everything = np.arange(similarity.shape[1])
        yield from ((everything, line) for line in similarity)
        return
    for start, end in pairwise(similarity.indptr):
        yield similarity.indices[start:end], similarity.data[start:end]
