"""Split events into training and test events, and detect leaks between the two."""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.arrays import Bools
from recsys.data.interactions import Interactions, Moment
from recsys.errors import DataError, InvalidArgumentError, LeakageError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION_TERM = re.compile(r"(\d{1,18})(us|ms|mo|s|m|h|d|w|q|y)")
_DAYS = {
    **{"us": 1e-6 / 86_400, "ms": 1e-3 / 86_400, "s": 1 / 86_400, "m": 1 / 1_440, "h": 1 / 24},
    **{"d": 1, "w": 7, "mo": 31, "q": 92, "y": 366},
}
_MAX_DAYS = 366_000  # a millennium, after which dates leave the calendar


class TimeSplit(NamedTuple):
    """Events before a moment, and events at or after it."""

    train: Interactions
    test: Interactions


class LeaveLastOut(NamedTuple):
    """The last event of each user for testing, the one before for validation, the rest to train."""

    train: Interactions
    validation: Interactions
    test: Interactions


def split_by_time(interactions: Interactions, at: Moment) -> TimeSplit:
    """Return the events before a moment, and the events at or after it.

    Where the moment is the same for all users, training never sees later events of other users
    (Meng et al., 2020, https://arxiv.org/abs/2007.13237). Where each user has a moment, it does.

    Args:
        interactions: All events.
        at: Moment of the split, in microseconds UTC.

    Raises:
        DataError: If one side is empty.
    """
    train, test = interactions.before(at), interactions.since(at)
    if not len(train) or not len(test):
        moment = _time(at) if isinstance(at, int) else "a moment of each user"
        raise DataError(f"split must lie inside the events, {_span(interactions)}, got {moment}")
    check_no_leak(train, test, at_us=at if isinstance(at, int) else None)
    return TimeSplit(train, test)


def leave_last_out(interactions: Interactions) -> LeaveLastOut:
    """Return the split of published sequential-recommendation tables.

    Users with fewer than three events are for training only. This is the protocol of Kang and
    McAuley (2018, https://arxiv.org/abs/1808.09781). Training sees what other users did after a
    user's test event, so the results compare with papers and do not predict live results.

    Raises:
        DataError: If no user has three events.
        LeakageError: If a user's held-out event is in the training events as well.
    """
    order = np.lexsort((interactions.timestamps_us, interactions.user_rows))  # stable
    users = interactions.user_rows[order]
    counts = np.bincount(users, minlength=interactions.n_users)
    ends = np.cumsum(counts)
    from_end = np.empty(len(interactions), dtype=np.int64)  # 0 is the user's last event
    from_end[order] = ends[users] - 1 - np.arange(len(users))
    held_out = counts[interactions.user_rows] >= 3
    if not held_out.any():
        raise DataError("at least one user must have three events, got none; split by time instead")
    split = LeaveLastOut(
        train=interactions.where(~held_out | (from_end >= 2)),
        validation=interactions.where(held_out & (from_end == 1)),
        test=interactions.where(held_out & (from_end == 0)),
    )
    check_no_leak(split.train, split.validation)
    check_no_leak(split.train, split.test)
    check_no_leak(split.validation, split.test)
    return split


def check_no_leak(train: Interactions, test: Interactions, *, at_us: int | None = None) -> None:
    """Raise if ``train`` contains what evaluation on ``test`` should predict.

    Args:
        train: Events to learn from.
        test: Events to predict.
        at_us: Moment that separates them for all users, in microseconds UTC. None if each user has
            a moment of their own.

    Raises:
        LeakageError: If an event is on the wrong side of the moment, if a training event is later
            than a test event of the same user, or if an event is on both sides.
        InvalidArgumentError: If ``train`` and ``test`` have different user or item rows.
    """
    if train.n_items != test.n_items or train.user_ids != test.user_ids:
        raise InvalidArgumentError(
            "train and test must share user and item rows; split one Interactions"
        )
    if at_us is not None:
        _require_none(train, train.timestamps_us >= at_us, f"train must end before {_time(at_us)}")
        _require_none(test, test.timestamps_us < at_us, f"test must begin at {_time(at_us)}")
    first_us = np.full(train.n_users, np.iinfo(np.int64).max)
    np.minimum.at(first_us, test.user_rows, test.timestamps_us)
    _require_none(
        train,
        train.timestamps_us > first_us[train.user_rows],
        "a user's training events must not be later than the user's test events",
    )
    _require_none(
        train,
        _in_both(train, test),
        "no event must be in train and test; drop repeated events from the table",
    )


def check_held_out(test: Interactions, held_out: Bools | None) -> None:
    """Raise unless all test events are of users from whom nothing was learned.

    Args:
        test: Events to predict.
        held_out: Users whose events were kept from training, bool (U,); None checks nothing.

    Raises:
        LeakageError: If a test event is of another user.
    """
    if held_out is not None:
        wrong = ~held_out[test.user_rows]
        _require_none(test, wrong, "test events must be of users who were held out from training")


def cut_times(split_us: int, horizon: str, n: int) -> tuple[int, ...]:
    """Return the moments 1, 2, … n horizons before the split, latest first, in microseconds UTC.

    Calendar units count from the split, so "1mo" before 31 March is the end of February and "2mo"
    before it is 31 January.

    Args:
        split_us: Start of the test events, in microseconds UTC.
        horizon: Duration in the notation of polars, such as "30d", "1mo" or "1w12h".
        n: Number of moments.

    Raises:
        InvalidArgumentError: If ``horizon`` is not a duration above zero, ``n`` horizons are longer
            than a millennium, or ``n`` is below 1.
    """
    terms = _DURATION_TERM.findall(horizon)
    written = "".join(count + unit for count, unit in terms)
    if written != horizon or not any(int(count) for count, _ in terms):
        raise InvalidArgumentError(
            f'horizon must be a duration such as "30d" or "1mo", got {horizon!r}'
        )
    if n < 1:
        raise InvalidArgumentError(f"n must be at least 1, got {n}")
    if n * sum(int(count) * _DAYS[unit] for count, unit in terms) > _MAX_DAYS:
        raise InvalidArgumentError(
            f'horizon must be at most "{_MAX_DAYS // n}d", so that {n} fit into a millennium, got '
            f"{horizon!r}"
        )
    split = pl.Series([split_us]).cast(pl.Datetime("us", "UTC"))
    offsets = (
        "-" + "".join(f"{int(count) * step}{unit}" for count, unit in terms)
        for step in range(1, n + 1)
    )
    return tuple(split.dt.offset_by(offset).dt.timestamp("us").item() for offset in offsets)


def _in_both(train: Interactions, test: Interactions) -> NDArray[np.bool_]:
    """Return which training events (E,) have the user, item and time of a test event."""
    columns = ("user_rows", "item_rows", "timestamps_us")
    left, right = (
        pl.DataFrame({name: getattr(events, name) for name in columns}) for events in (train, test)
    )
    both = left.with_row_index().join(right, on=columns, how="semi")["index"].to_numpy()
    mask = np.zeros(len(train), dtype=np.bool_)
    mask[both] = True
    return mask


def _require_none(events: Interactions, wrong: NDArray[np.bool_], wanted: str) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        raise LeakageError(
            f"{wanted}, got {int(wrong.sum())} events that break this, such as "
            f"user row {events.user_rows[first]}, item row {events.item_rows[first]} at "
            f"{_time(int(events.timestamps_us[first]))}"
        )


def _time(time_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat()


def _span(events: Interactions) -> str:
    if not len(events):
        return "of which there are none"
    first, last = int(events.timestamps_us.min()), int(events.timestamps_us.max())
    return f"{_time(first)} to {_time(last)}"
