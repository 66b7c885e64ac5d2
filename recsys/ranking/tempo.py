"""The time scales of a log: how often a user comes back, and how far ahead ranking looks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions

# Events closer than this to the one before belong to the same visit.
VISIT_PAUSE_US = 60 * 60 * 1_000_000
_SHORTEST_PAUSE_DAYS = VISIT_PAUSE_US / MICROSECONDS_PER_DAY


class Tempo(NamedTuple):
    """Time scales of a log, in days.

    Features count time in these units. So one model serves a shop where people come daily, and one
    where they come once a year.

    Args:
        pause_days: Typical time between two visits of one user.
        window_days: Period that ranking looks ahead.
    """

    pause_days: float
    window_days: float


def measure_tempo(interactions: Interactions, window_days: float) -> Tempo:
    """Return the tempo of a log.

    The pause is the median over users of each user's median pause between visits, so that a few
    very active users do not set it. A log in which nobody came twice has the window as its pause.

    Args:
        interactions: Events, oldest first.
        window_days: Period that ranking looks ahead.
    """
    order = np.argsort(interactions.user_rows, kind="stable")
    users, times_us = interactions.user_rows[order], interactions.timestamps_us[order]
    pauses_us = np.diff(times_us)
    between = (np.diff(users) == 0) & (pauses_us >= VISIT_PAUSE_US)
    if not between.any():
        return Tempo(max(window_days, _SHORTEST_PAUSE_DAYS), window_days)
    medians = _medians(users[1:][between], pauses_us[between])
    return Tempo(float(np.median(medians)) / MICROSECONDS_PER_DAY, window_days)


def _medians(groups: Ints, values: Ints) -> NDArray[np.float64]:
    """Return the lower median of the values of each group."""
    order = np.lexsort((values, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1) != 0)
    lengths = np.diff(starts, append=len(groups))
    middle: Ints = values[order][starts + (lengths - 1) // 2]
    return middle.astype(np.float64)


def visit_numbers(user_rows: Ints, timestamps_us: Ints) -> Ints:
    """Return the number of each event's visit, ascending from 0, int64 (E,).

    Args:
        user_rows: User of each event, events of one user side by side.
        timestamps_us: Time of each event, oldest first within a user.
    """
    if len(user_rows) == 0:
        return np.empty(0, dtype=np.int64)
    begins = (np.diff(user_rows) != 0) | (np.diff(timestamps_us) >= VISIT_PAUSE_US)
    return np.concatenate([[0], np.cumsum(begins)])
