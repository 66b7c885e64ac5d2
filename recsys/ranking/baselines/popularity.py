"""The same ranking for all users: what most of them took, ever or lately."""

from typing import Self

import numpy as np

from recsys.data.arrays import Bools, Floats, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines.contract import require_fitted, require_known, require_past


class Popularity:
    """Ranks items by the number of distinct users who took them."""

    name = "popularity"

    def __init__(self) -> None:
        self._n_users = 0
        self._users: Floats | None = None

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Count the users of every item; see ``Baseline.fit``."""
        require_past(interactions, now_us)
        self._n_users = interactions.n_users
        self._users = distinct_users(interactions.without_users(held_out))
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return the number of users of every item, (B, N); see ``Baseline.scores``."""
        users = require_fitted(self._users, self.name)
        require_known(user_rows, self._n_users)
        return np.tile(users, (len(user_rows), 1))


class RecentPopularity:
    """Ranks items by the number of distinct users who took them lately.

    Args:
        days: Length in days of the window that ends at ``now_us``.
    """

    def __init__(self, days: float = 30.0) -> None:
        if days <= 0:
            raise InvalidArgumentError(f"days must be above 0, got {days}")
        self.name = f"popularity, last {days:g} days"
        self._days = days
        self._popularity = Popularity()

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Count the users of every item in the window; see ``Baseline.fit``."""
        start_us = now_us - round(self._days * MICROSECONDS_PER_DAY)
        require_past(interactions, now_us)
        recent = interactions.between(start_us, now_us)
        self._popularity.fit(recent, now_us=now_us, held_out=held_out)
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return the number of recent users of every item; see ``Baseline.scores``."""
        return self._popularity.scores(user_rows)


def distinct_users(interactions: Interactions) -> Floats:
    """Return the number of distinct users of each item (N,)."""
    return np.asarray(interactions.matrix().sum(axis=0), dtype=np.float32).ravel()
