"""Draw when products arrive in the generated shop, and when they are in season."""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from recsys.data.arrays import Doubles, Ints
from recsys.data.synthetic.vocabulary import LEAVES, THEMES

START_SHARE = 0.45
COLLECTION_EVERY_MONTHS = 6
"""A large collection arrives in the last month and every so many months before it."""

_COLLECTION_WEIGHT = 30.0  # of an ordinary month's arrivals
_SEASON_MONTHS = 1.5


def month_starts(end: datetime, months: int) -> list[datetime]:
    """Return the first instants of the ``months`` months before ``end``, then ``end`` itself."""
    last = end.year * 12 + end.month - 1
    return [
        end.replace(year=index // 12, month=index % 12 + 1)
        for index in range(last - months, last + 1)
    ]


def draw_arrival_months(n_items: int, *, months: int, rng: np.random.Generator) -> Ints:
    """Return the month in which each product arrives, 0 for products of the start (N,).

    The numbers are exact shares, not draws: the last month always has its collection.
    """
    shares = arrival_shares(months)
    bounds = np.round(shares.cumsum() * n_items).astype(np.int64)
    arrival = np.searchsorted(bounds, np.arange(n_items), side="right")
    return rng.permutation(arrival).astype(np.int64)


def arrival_shares(months: int) -> Doubles:
    """Return the share of the catalogue that arrives in each month (months,)."""
    weights = np.ones(months)
    weights[months - 1 :: -COLLECTION_EVERY_MONTHS] = _COLLECTION_WEIGHT
    weights[0] = 0.0
    shares: Doubles = weights * (1.0 - START_SHARE) / weights.sum()
    shares[0] = START_SHARE
    return shares


def leaf_season(month: int) -> Doubles:
    """Return how much in season each product type is in a calendar month, in [0, 1] (types,)."""
    return _season([leaf.peak_month for leaf in LEAVES.values()], month)


def theme_season(month: int) -> Doubles:
    """Return how much in season each theme is in a calendar month, in [0, 1] (themes,)."""
    return _season([theme.peak_month for theme in THEMES.values()], month)


def _season(peaks: Sequence[int | None], month: int) -> Doubles:
    gaps = [
        None if peak is None else min((month - peak) % 12, (peak - month) % 12) for peak in peaks
    ]
    return np.array(
        [0.0 if gap is None else math.exp(-((gap / _SEASON_MONTHS) ** 2)) for gap in gaps]
    )
