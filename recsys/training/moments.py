"""One user at one moment, many times over: what the user encoder learns from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions

# Inside a visit the next event mostly repeats the last, as a cart follows the view of the same
# item; an encoder that learns from such moments learns to echo.
VISIT_PAUSE_US = 60 * 60 * 1_000_000


class OrderedEvents(NamedTuple):
    """Events in the order user, then time; every field has shape (E,)."""

    users: Ints
    rows: Ints
    kinds: Ints
    times_us: Ints


@dataclass(frozen=True)
class Moments:
    """Distinct (user, time) with history and targets as ranges of ordered events; shapes (A,).

    Args:
        users: User row.
        times_us: When, microseconds UTC.
        starts: The user's first event.
        ends: The user's first event at this time: the history is [starts, ends).
        stops: One past the last target: the targets are [ends, stops), never empty.
    """

    users: Ints
    times_us: Ints
    starts: Ints
    ends: Ints
    stops: Ints

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: Ints | NDArray[np.bool_]) -> "Moments":
        """Return the moments at positions or where a mask is true."""
        return Moments(
            self.users[chosen],
            self.times_us[chosen],
            self.starts[chosen],
            self.ends[chosen],
            self.stops[chosen],
        )


def order_events(interactions: Interactions) -> OrderedEvents:
    """Return the events in the order user, then time; equal times keep their order."""
    order = np.lexsort((interactions.timestamps_us, interactions.user_rows))
    return OrderedEvents(
        interactions.user_rows[order],
        interactions.item_rows[order],
        interactions.kinds[order],
        interactions.timestamps_us[order],
    )


def build_moments(events: OrderedEvents, horizon_days: float, *, until_us: int) -> Moments:
    """Return every moment before ``until_us`` at which a user began a visit.

    Args:
        events: In the order user, then time.
        horizon_days: Targets lie at the moment or at most this much later.
        until_us: Neither moments nor targets lie at or after it.
    """
    ranked, ranks = np.unique(events.times_us, return_inverse=True)
    # User and time in one sortable number; ranks, not times, keep it far from overflow.
    stride = len(ranked) + 1
    keys = events.users * stride + ranks
    ends = np.flatnonzero(np.diff(keys, prepend=-1) != 0)
    ends = ends[(events.times_us[ends] < until_us) & _begins_visit(events, ends)]
    users, times_us = events.users[ends], events.times_us[ends]
    horizon_us = times_us + int(horizon_days * MICROSECONDS_PER_DAY)
    last = np.searchsorted(ranked, np.minimum(horizon_us, until_us - 1), side="right")
    return Moments(
        users=users,
        times_us=times_us,
        starts=np.searchsorted(events.users, users),
        ends=ends,
        stops=np.searchsorted(keys, users * stride + last),
    )


def _begins_visit(events: OrderedEvents, ends: Ints) -> NDArray[np.bool_]:
    """Return which events (A,) are a user's first, or the first after a pause."""
    before = np.maximum(ends - 1, 0)
    first = (ends == 0) | (events.users[before] != events.users[ends])
    pauses_us = events.times_us[ends] - events.times_us[before]
    return np.asarray(first | (pauses_us >= VISIT_PAUSE_US))


def draw_moments(moments: Moments, per_user: int, rng: np.random.Generator) -> Ints:
    """Return positions of at most ``per_user`` random moments of each user, shuffled."""
    order = np.lexsort((rng.random(len(moments)), moments.users))  # users grouped, random inside
    users = moments.users[order]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    return rng.permutation(order[place < per_user])
