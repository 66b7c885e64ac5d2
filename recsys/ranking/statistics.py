"""What is known of each item as of one moment: popularity, neighbours, factors and relations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Floats, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions, Moment, last_moment
from recsys.ranking.baselines import (
    IALS,
    cosine_neighbours,
    distinct_users,
    ease_weights,
    strongest_entries,
)
from recsys.ranking.relations import NO_RELATIONS, Related
from recsys.ranking.tempo import Tempo, measure_tempo, visit_numbers

# Periods in which buyers are counted, in windows; infinity is ever.
PERIODS = (np.inf, 3.0, 1.0, 0.5, 0.25)
YEAR_DAYS = 365
# EASE inverts an N x N matrix, which takes a minute at this size and ten well beyond it.
EASE_MAX_ITEMS = 12_500
# A shop with more events or items takes long in everything, and training counts it as of several
# moments. There EASE is solved for the items with most users, and iALS ends after fewer sweeps.
LARGE_LOG, EASE_ITEMS_OF_LARGE_SHOP, SWEEPS_OF_LARGE_SHOP = 1_000_000, 8_000, 6
ITEMS_AT_ONCE = 4_096  # whose neighbours are sorted together
EASE_NEIGHBOURS, COSINE_NEIGHBOURS, NEXT_NEIGHBOURS = 500, 100, 100
SHRINKAGE = 10.0  # for cosines, so that pairs with few common users weigh less
N_FACTORS = 64
VISIT_ITEMS = 50  # items of a very large visit beyond this are not paired


@dataclass(frozen=True)
class Statistics:
    """Statistics of every item as of a moment, from the events before it.

    The three kinds of neighbours have K columns each, strongest first: item rows, of which -1 is
    padding, and weights, 0 on padding. An item that EASE was not solved for has none by it.

    Args:
        as_of_us: Moment of the statistics, microseconds UTC.
        tempo: Time scales of the log.
        users: Number of distinct users of each item in each of ``PERIODS``, (N, P).
        buyers: The same, counting events of the target kinds only (N, P).
        season_users: Number of distinct users over one window that began a year before the moment,
            (N,).
        ease_item_rows: Rows of the items that EASE was solved for (M,), ascending.
        ease_rows: Their neighbours by EASE (M, K).
        ease_weights: Their weights.
        cosine_rows: Neighbours by the cosine of item-kNN (N, K).
        cosine_weights: Their weights.
        next_rows: Items of the visit after that of the item (N, K).
        next_weights: Their weights.
        item_factors: Item factors of iALS (N, D), zero without events.
        related_rows: Related items by each kind of relation (R, N, K), which are no events: they
            are the same as of every moment.
        related_weights: Their weights.
    """

    as_of_us: int
    tempo: Tempo
    users: Floats
    buyers: Floats
    season_users: Floats
    ease_item_rows: NDArray[np.int32]
    ease_rows: NDArray[np.int32]
    ease_weights: Floats
    cosine_rows: NDArray[np.int32]
    cosine_weights: Floats
    next_rows: NDArray[np.int32]
    next_weights: Floats
    item_factors: Floats
    related_rows: NDArray[np.int32]
    related_weights: Floats

    @property
    def related(self) -> Related:
        """Related items of every item."""
        return Related(self.related_rows, self.related_weights)


def build_statistics(
    interactions: Interactions,
    as_of: Moment,
    *,
    target_kinds: Sequence[str],
    related: Related = NO_RELATIONS,
    window_days: float = 30.0,
    ridge: float = 200.0,
    ease_max_items: int | None = None,
) -> Statistics:
    """Return the statistics of all events before a moment.

    Where each user has a moment of their own, periods end with the last event of them all. Beyond
    ``LARGE_LOG`` events or ``EASE_MAX_ITEMS`` items, EASE and iALS are approximated.

    Args:
        interactions: Events; those at or after the moment are ignored.
        as_of: Moment of the statistics.
        target_kinds: Event kinds that ranking aims at.
        related: Related items of every item.
        window_days: Period that ranking looks ahead.
        ridge: Regularisation of EASE, in numbers of users.
        ease_max_items: Largest number of items for which EASE is solved; None chooses it by the
            numbers of events and items.
    """
    past = interactions.before(as_of)
    is_large = len(past) > LARGE_LOG or past.n_items > EASE_MAX_ITEMS
    if ease_max_items is None:
        ease_max_items = EASE_ITEMS_OF_LARGE_SHOP if is_large else EASE_MAX_ITEMS
    ials = IALS(N_FACTORS, n_sweeps=SWEEPS_OF_LARGE_SHOP) if is_large else IALS(N_FACTORS)
    as_of_us = last_moment(as_of, past)
    matrix = past.matrix()
    year_us, window_us = (round(days * MICROSECONDS_PER_DAY) for days in (YEAR_DAYS, window_days))
    season = past.between(as_of_us - year_us, as_of_us - year_us + window_us)
    ease = _ease(matrix, ridge, ease_max_items)
    cosine = strongest_entries(
        cosine_neighbours(matrix, n_neighbours=COSINE_NEIGHBOURS, shrinkage=SHRINKAGE).T.tocsr(),
        COSINE_NEIGHBOURS,
    )
    following = _next_items(past, NEXT_NEIGHBOURS)
    return Statistics(
        as_of_us=as_of_us,
        tempo=measure_tempo(past, window_days),
        users=_users_by_period(past, as_of_us, window_us),
        buyers=_users_by_period(past.of_kinds(target_kinds), as_of_us, window_us),
        season_users=distinct_users(season),
        ease_item_rows=ease.items.astype(np.int32),
        ease_rows=ease.rows,
        ease_weights=ease.weights,
        cosine_rows=cosine[0],
        cosine_weights=cosine[1],
        next_rows=following[0],
        next_weights=following[1],
        item_factors=ials.fit(past, now_us=as_of_us).factors.items,
        related_rows=related.rows,
        related_weights=related.weights,
    )


def _users_by_period(past: Interactions, as_of_us: int, window_us: int) -> Floats:
    """Return the number of distinct users of each item in each of ``PERIODS`` (N, P).

    A user is counted where their latest event on the item is in the period.
    """
    pairs = past.user_rows * past.n_items + past.item_rows
    # Events are oldest first, so the last position of a pair is its latest event.
    distinct, position = np.unique(pairs[::-1], return_index=True)
    items, latest_us = distinct % past.n_items, past.timestamps_us[::-1][position]
    ever = np.iinfo(np.int64).min
    starts_us = [ever if np.isinf(one) else as_of_us - round(one * window_us) for one in PERIODS]
    columns = [
        np.bincount(items[latest_us >= start_us], minlength=past.n_items) for start_us in starts_us
    ]
    return np.stack(columns, axis=1).astype(np.float32)


class _Ease(NamedTuple):
    """The fields of ``Statistics`` that EASE gives."""

    items: Ints
    rows: NDArray[np.int32]
    weights: Floats


def _ease(matrix: "sparse.csr_matrix", ridge: float, max_items: int) -> _Ease:
    """Return the neighbours of each item by EASE.

    EASE is that of Steck (2019, https://arxiv.org/abs/1905.03375), cut to the largest weights.
    """
    n_users = matrix.getnnz(axis=0)
    known: Ints = np.flatnonzero(n_users)
    if len(known) > max_items:
        known = np.sort(np.argsort(-n_users, kind="stable")[:max_items])
    if len(known) < 2:
        known = known[:0]
    count = max(1, min(EASE_NEIGHBOURS, len(known) - 1))
    rows = np.full((len(known), count), -1, dtype=np.int32)
    strengths = np.zeros((len(known), count), dtype=np.float32)
    weights = ease_weights(matrix[:, known], ridge=ridge) if len(known) else strengths
    for start in range(0, len(known), ITEMS_AT_ONCE):
        own = weights[start : start + ITEMS_AT_ONCE]
        top = np.argpartition(-np.abs(own), count - 1, axis=1)[:, :count]
        values = np.take_along_axis(own, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        some = slice(start, start + len(own))
        rows[some] = known[np.take_along_axis(top, order, axis=1)]
        strengths[some] = np.take_along_axis(values, order, axis=1)
    return _Ease(known, rows, strengths)


def _next_items(past: Interactions, n_neighbours: int) -> tuple[NDArray[np.int32], Floats]:
    """Return the items that follow each item most often in the next visit, and how often (N, K).

    Counts are divided by the square root of both items' counts, shrunk as cosines are.
    """
    order = np.argsort(past.user_rows, kind="stable")
    users, items = past.user_rows[order], past.item_rows[order]
    visits = visit_numbers(users, past.timestamps_us[order])
    starts = np.flatnonzero(np.diff(visits, prepend=-1))
    kept = np.arange(len(visits)) - starts[visits] < VISIT_ITEMS
    shape = (len(starts), past.n_items)
    ones = np.ones(int(kept.sum()), dtype=np.float32)
    taken = sparse.csr_matrix((ones, (visits[kept], items[kept])), shape=shape)
    taken.data[:] = 1.0
    followed = np.flatnonzero(np.diff(users[starts]) == 0)
    norms = np.sqrt(np.asarray(taken.sum(axis=0), dtype=np.float32).ravel())
    before, after = taken[followed].T.tocsr(), taken[followed + 1]
    found = []
    for start in range(0, past.n_items, ITEMS_AT_ONCE):
        counts = (before[start : start + ITEMS_AT_ONCE] @ after).tocoo()
        other = counts.row + start != counts.col
        row, column = counts.row[other], counts.col[other]
        shrunk = norms[row + start] * norms[column] + np.float32(SHRINKAGE)
        values = sparse.csr_matrix((counts.data[other] / shrunk, (row, column)), shape=counts.shape)
        found.append(strongest_entries(values, n_neighbours))
    width = max(rows.shape[1] for rows, _ in found)
    pads = [((0, 0), (0, width - rows.shape[1])) for rows, _ in found]
    padded = list(zip(found, pads, strict=True))
    return (
        np.concatenate([np.pad(one[0], pad, constant_values=-1) for one, pad in padded]),
        np.concatenate([np.pad(one[1], pad) for one, pad in padded]),
    )
