"""The past events of several users side by side, as the ranking features read them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.arrays import Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, History
from recsys.ranking.tempo import visit_numbers

HISTORY_EVENTS = 1_000  # older events of a very long history are not read
SIMILAR_EVENTS = 50  # how many of the last events a candidate is compared with one by one


class UserEvents(NamedTuple):
    """Past events of B users in one list (E,): user after user, each user's oldest event first.

    Args:
        users: Position of the event's user in the batch, int64 (E,).
        rows: Item rows, int64 (E,).
        kinds: Kind codes, int64 (E,).
        ages_days: Age of each event at the moment of the request, float32 (E,).
        lags_days: Time from each event to the user's latest one, float32 (E,). Old histories have
            large ages and, as all histories, a lag of 0 at their end.
        visits: Number of the event's visit, counted back from the user's latest, int64 (E,).
        counts: Events of each user, float32 (B,).
        latest: Item rows of each user's last ``SIMILAR_EVENTS`` events, each item once, at its last
            event, int64 (B, S); -1 pads at the front.
    """

    users: Tensor
    rows: Tensor
    kinds: Tensor
    ages_days: Tensor
    lags_days: Tensor
    visits: Tensor
    counts: Tensor
    latest: Tensor

    def of(self, user: int) -> "UserEvents":
        """Return the events of one user alone."""
        own, some = self.users == user, slice(user, user + 1)
        names = ("users", "rows", "kinds", "ages_days", "lags_days", "visits")
        events = self._replace(**{name: getattr(self, name)[own] for name in names})
        return events._replace(
            users=events.users - user, counts=self.counts[some], latest=self.latest[some]
        )

    def sum_by_user(self, values: Tensor) -> Tensor:
        """Return the sum of the values (E, ...) of each user's events, (B, ...)."""
        sums = values.new_zeros(len(self.counts), *values.shape[1:])
        return sums.index_add_(0, self.users, values)

    def latest_by_user(self, values: Tensor) -> Tensor:
        """Return the value (E,) of each user's last event, 0 without events, (B,)."""
        last = self.counts.long().cumsum(0) - 1
        known = self.counts > 0
        return values.new_zeros(len(self.counts)).masked_scatter(known, values[last[known]])


def collect_events(
    histories: Sequence[History], now_us: Ints, device: torch.device | str
) -> UserEvents:
    """Return the events of each history before its moment, the last ``HISTORY_EVENTS`` of them.

    Args:
        histories: One per user, oldest event first (B entries).
        now_us: Moment of each request, microseconds UTC (B,).
        device: Where the tensors live.
    """
    past = [_before(*one) for one in zip(histories, now_us.tolist(), strict=True)]
    counts = np.array([len(history.item_rows) for history in past], dtype=np.int64)
    users = np.repeat(np.arange(len(past)), counts)
    rows, kinds, times_us = (np.concatenate(column) for column in zip(*past, strict=True))
    ends = np.repeat(counts.cumsum(), counts)  # one past the last event of the event's user
    from_end = ends - np.arange(len(users)) - 1
    n_latest = min(SIMILAR_EVENTS, int(counts.max()))
    latest = np.full((len(past), n_latest), -1, dtype=np.int64)
    late = from_end < n_latest
    latest[users[late], n_latest - 1 - from_end[late]] = rows[late]
    latest = _each_once(latest)
    visits = visit_numbers(users, times_us)
    return UserEvents(
        users=torch.from_numpy(users).to(device),
        rows=torch.from_numpy(rows).to(device),
        kinds=torch.from_numpy(kinds).to(device),
        ages_days=_days(now_us[users] - times_us).to(device),
        lags_days=_days(times_us[ends - 1] - times_us).to(device),
        visits=torch.from_numpy(visits[ends - 1] - visits).to(device),
        counts=torch.from_numpy(counts).to(device, torch.float32),
        latest=torch.from_numpy(latest).to(device),
    )


def _each_once(latest: Ints) -> Ints:
    """Return the rows (B, S) with pads in place of all but the last of equal ones, pads first."""
    order = np.argsort(latest, axis=1, kind="stable")
    ascending = np.take_along_axis(latest, order, axis=1)
    repeats = np.zeros(latest.shape, dtype=np.bool_)
    np.put_along_axis(repeats, order[:, :-1], ascending[:, :-1] == ascending[:, 1:], axis=1)
    kept = np.where(repeats, -1, latest)
    return np.take_along_axis(kept, np.argsort(kept >= 0, axis=1, kind="stable"), axis=1)


def _days(microseconds: Ints) -> Tensor:
    return torch.from_numpy((microseconds / MICROSECONDS_PER_DAY).astype(np.float32))


def _before(history: History, now_us: int) -> History:
    end = int(np.searchsorted(history.timestamps_us, now_us, side="left"))
    start = max(0, end - HISTORY_EVENTS)
    return History(*(column[start:end] for column in history))
