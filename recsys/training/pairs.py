"""Items that go together, from what users took one after the other."""

import numpy as np

from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions

PAIR_DAYS = 7  # two items of one user within these days go together
MAX_PAIRS = 200_000


def item_pairs(interactions: Interactions | None, *, seed: int) -> Ints:
    """Return rows of distinct items that a user met one after the other, int64 (P, 2).

    A pair is there as often as it happened. Without events there are none.

    Args:
        interactions: Events to read; training leaves out those it must not see.
        seed: Of the order, and of the choice among more than ``MAX_PAIRS``.
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
