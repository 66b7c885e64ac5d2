"""The visits that the user encoder learns from: a history before each, and targets after it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.ranking.tempo import VISIT_PAUSE_US


class OrderedEvents(NamedTuple):
    """Events sorted by user, then time; every field is int64 (E,)."""

    users: Ints
    rows: Ints
    kinds: Ints
    times_us: Ints


@dataclass(frozen=True)
class Visits:
    """Visits of users, each with its history and its targets as ranges of the ordered events.

    Every field is int64 (V,). Events are given by their position in ``OrderedEvents``.

    Args:
        users: Row of the user.
        times_us: Time at which the visit began, microseconds UTC.
        history_starts: Position of the user's first event.
        visit_starts: Position of the visit's first event, where the history ends.
        target_stops: One past the position of the last target. The targets begin at
            ``visit_starts``, so there is at least one.
    """

    users: Ints
    times_us: Ints
    history_starts: Ints
    visit_starts: Ints
    target_stops: Ints

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: Ints | NDArray[np.bool_]) -> "Visits":
        """Return some of the visits.

        Args:
            chosen: Their positions, or a mask over all visits.
        """
        return Visits(
            self.users[chosen],
            self.times_us[chosen],
            self.history_starts[chosen],
            self.visit_starts[chosen],
            self.target_stops[chosen],
        )


def order_events(interactions: Interactions) -> OrderedEvents:
    """Return the events sorted by user, then time; events at equal times keep their order."""
    order = np.lexsort((interactions.timestamps_us, interactions.user_rows))
    return OrderedEvents(
        interactions.user_rows[order],
        interactions.item_rows[order],
        interactions.kinds[order],
        interactions.timestamps_us[order],
    )


def build_visits(events: OrderedEvents, horizon_days: float, *, until_us: int) -> Visits:
    """Return every visit that began before ``until_us``.

    Inside a visit the next event mostly repeats the last, as a cart follows the view of the same
    item. An encoder that learned from every event would learn to repeat the last one.

    Args:
        events: Events sorted by user, then time.
        horizon_days: Days after the start of a visit in which targets lie; 0 takes only the events
            at the very time of the start.
        until_us: End of the period; visits and targets at or after it are left out.
    """
    ranked, ranks = np.unique(events.times_us, return_inverse=True)
    # User and time in one sortable number; ranks, not times, keep it far from overflow.
    stride = len(ranked) + 1
    keys = events.users * stride + ranks
    starts = np.flatnonzero(np.diff(keys, prepend=-1) != 0)
    starts = starts[(events.times_us[starts] < until_us) & _begins_visit(events, starts)]
    users, times_us = events.users[starts], events.times_us[starts]
    horizon_us = times_us + int(horizon_days * MICROSECONDS_PER_DAY)
    last = np.searchsorted(ranked, np.minimum(horizon_us, until_us - 1), side="right")
    return Visits(
        users=users,
        times_us=times_us,
        history_starts=np.searchsorted(events.users, users),
        visit_starts=starts,
        target_stops=np.searchsorted(keys, users * stride + last),
    )


def _begins_visit(events: OrderedEvents, positions: Ints) -> NDArray[np.bool_]:
    """Return which events are a user's first, or the first after a pause, bool like positions."""
    before = np.maximum(positions - 1, 0)
    first = (positions == 0) | (events.users[before] != events.users[positions])
    pauses_us = events.times_us[positions] - events.times_us[before]
    return np.asarray(first | (pauses_us >= VISIT_PAUSE_US))


def draw_visits(visits: Visits, per_user: int, rng: np.random.Generator) -> Ints:
    """Return positions of random visits, at most ``per_user`` of each user, in random order."""
    order = np.lexsort((rng.random(len(visits)), visits.users))  # users grouped, random inside
    users = visits.users[order]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    return rng.permutation(order[place < per_user])
