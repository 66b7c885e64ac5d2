"""Pairs of items that users viewed or bought one after the other."""

import numpy as np

from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions

PAIR_DAYS = 7  # longest time between the two items of a pair
MAX_PAIRS = 200_000


def item_pairs(interactions: Interactions | None, *, seed: int) -> Ints:
    """Return rows of distinct items that a user viewed or bought one after the other, int64 (P, 2).

    A pair occurs as often as it happened. Empty without events.

    Args:
        interactions: Events that training may see, or None.
        seed: Random seed of the order, and of the sample of ``MAX_PAIRS`` where there are more.
    """
    if interactions is None:
        return np.empty((0, 2), dtype=np.int64)
    order = np.argsort(interactions.user_rows, kind="stable")
    users, rows = interactions.user_rows[order], interactions.item_rows[order]
    times = interactions.timestamps_us[order]
    together = (
        (users[1:] == users[:-1])
        & (rows[1:] != rows[:-1])
        & (times[1:] - times[:-1] <= PAIR_DAYS * MICROSECONDS_PER_DAY)
    )
    pairs = np.stack([rows[:-1][together], rows[1:][together]], axis=1)
    return np.random.default_rng(seed).permutation(pairs)[:MAX_PAIRS]
