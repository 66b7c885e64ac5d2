"""Recommend what the user took before, often and lately."""

from typing import NamedTuple, Self

import numpy as np
from scipy import sparse

from recsys.data.arrays import Bools, Floats, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines.contract import require_fitted, require_known, require_past
from recsys.ranking.baselines.popularity import distinct_users

# Weight of the most popular item. Popularity orders equal items and items that the user never
# took, and weighs less than a single event that is eight half-lives old.
_TIE_WEIGHT = 1e-3


class OwnPurchases:
    """Ranks the user's own items by count and age, and all others by popularity.

    An item that the user took ``n`` times, last ``d`` days ago, scores
    ``n * 2 ** (-d / half_life)``. Items with equal scores, such as those of one basket, are in the
    order of their popularity. So are the items that the user never took, which come last.

    Args:
        half_life_days: Days after which an item weighs half.
    """

    name = "own purchases"

    def __init__(self, half_life_days: float = 60.0) -> None:
        if half_life_days <= 0:
            raise InvalidArgumentError(f"half_life_days must be above 0, got {half_life_days}")
        self._half_life_days = half_life_days
        self._fitted: _Fitted | None = None

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Count every user's items; see ``Baseline.fit``."""
        require_past(interactions, now_us)
        shape = (interactions.n_users, interactions.n_items)
        pairs = interactions.user_rows * interactions.n_items + interactions.item_rows
        # Events are oldest first, so the last position of a pair is its latest event.
        distinct, position, counts = np.unique(pairs[::-1], return_index=True, return_counts=True)
        latest_us = interactions.timestamps_us[::-1][position]
        days = (now_us - latest_us) / MICROSECONDS_PER_DAY
        values = (counts * 2.0 ** (-days / self._half_life_days)).astype(np.float32)
        rows = np.divmod(distinct, interactions.n_items)
        users = distinct_users(interactions.without_users(held_out))
        popularity = users * np.float32(_TIE_WEIGHT / max(float(users.max(initial=0.0)), 1.0))
        self._fitted = _Fitted(sparse.csr_matrix((values, rows), shape=shape), popularity)
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return decayed counts plus a little popularity; see ``Baseline.scores``."""
        fitted = require_fitted(self._fitted, self.name)
        require_known(user_rows, fitted.own.shape[0])
        scores: Floats = fitted.own[user_rows].toarray() + fitted.popularity
        return scores


class _Fitted(NamedTuple):
    own: "sparse.csr_matrix"  # decayed counts (U, N)
    popularity: Floats  # (N,)
