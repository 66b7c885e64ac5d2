"""The events that training reads, and the moments at which it cuts them."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import SplitConfig
from recsys.data.arrays import Bools, Ints
from recsys.data.dataset import Dataset
from recsys.data.interactions import (
    MICROSECONDS_PER_DAY,
    Interactions,
    Moment,
    build_interactions,
    last_moment,
)
from recsys.data.splits import cut_times
from recsys.data.timestamps import from_us
from recsys.errors import DataError
from recsys.ranking.tempo import visit_numbers
from recsys.schema import EARLIEST_EVENT

logger = logging.getLogger(__name__)

AUTO = "auto"
HOUR_US = 3_600_000_000
FOREVER_US = int(np.iinfo(np.int64).max)
NEVER_US = int(np.iinfo(np.int64).min)  # every cut of a user from whom nothing is learned
HELD_OUT = 5  # one of so many times of a user is held out
TEST_SHARE = 0.1  # of the target events, by which the horizon is chosen
MOST_VISITS = 10  # of a user, on average, in one horizon
LEAST_ASKED = 0.1  # of the users whom a split by user would ask
WITHOUT_RANKING = "leave the events out to train without ranking"


def dataset_interactions(dataset: Dataset) -> Interactions | None:
    """Return the events of a shop, or None if it has none."""
    if dataset.events is None:
        return None
    return build_interactions(dataset.events, dataset.items["item_id"].to_list())


def choose_targets(interactions: Interactions | None, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the event kinds to recommend for: the wanted ones, else purchases, else all.

    Raises:
        InvalidArgumentError: If a wanted kind does not occur.
    """
    if interactions is None:
        return ()
    if wanted:
        interactions.of_kinds(wanted)  # raises for a kind that does not occur
        return wanted
    return (
        ("purchase",) if "purchase" in interactions.kind_names else tuple(interactions.kind_names)
    )


def choose_cuts(
    interactions: Interactions | None,
    target_kinds: Sequence[str],
    split: SplitConfig,
    *,
    seed: int = 0,
) -> tuple[Moment, ...]:
    """Return the moments of the snapshots, earliest first, and then the split.

    By the protocol of time they are the same for all users. By the others each user has moments of
    their own; a user without enough events to hold out has moments after all of them, and one from
    whom nothing is learned has moments before all of them. Without events, the tuple is empty.

    Args:
        interactions: All events.
        target_kinds: Event kinds to recommend for.
        split: What is held out.
        seed: Random seed of the folds of users.

    Raises:
        InvalidArgumentError: If the horizon is not a duration, or longer than the calendar.
        DataError: If no event is before the first snapshot, or no user of the fold can be asked.
    """
    if interactions is None:
        return ()
    targets = interactions.of_kinds(target_kinds)
    if split.protocol in ("user_time", "leave_one_out"):
        return user_cuts(targets, split)
    if split.protocol == "user_fold":
        return fold_cuts(targets, split, seed=seed)
    if split.protocol == "time" or split.at is not None or split.horizon != AUTO:
        return time_cuts(interactions, _with_horizon(interactions, targets, split))
    by_user = user_cuts(targets, split)
    by_time = _time_cuts_if_any(interactions, targets, split)
    if by_time is None or _too_few(interactions, targets, by_time, by_user):
        logger.warning(
            "the last fifth of each user's events is held out, not the last events of all: hardly "
            "anybody who was there before came back at the end; set [split] protocol to choose"
        )
        return by_user
    return by_time


def time_cuts(interactions: Interactions, split: SplitConfig) -> tuple[int, ...]:
    """Return the moments of the protocol of time; see :func:`choose_cuts`."""
    # Midnight after the last event, so that the windows between cuts are whole days.
    end_us = (
        int(interactions.timestamps_us[-1]) // MICROSECONDS_PER_DAY + 1
    ) * MICROSECONDS_PER_DAY
    if split.at is not None:
        at = split.at if split.at.tzinfo else split.at.replace(tzinfo=UTC)
        if at < EARLIEST_EVENT:
            raise DataError(
                f"[split] at must not be before {EARLIEST_EVENT.year}, when the earliest events "
                f"that are read happen, got {at}; set a later at"
            )
        split_us = round(at.timestamp() * 1e6)
    else:
        split_us = cut_times(end_us, split.horizon, 1)[0]
    cuts = cut_times(split_us, split.horizon, split.n_cuts)[::-1]
    first_us = int(interactions.timestamps_us[0])
    if not first_us < cuts[0]:
        n_horizons = split.n_cuts + (split.at is None)
        room_us = (split_us if split.at is not None else end_us) - first_us
        raise DataError(
            f"events must begin before the first of {split.n_cuts} cuts of {split.horizon}, "
            f"{from_us(cuts[0])}, got {from_us(first_us)} as the first; "
            f"{_shorter(room_us // n_horizons)}lower n_cuts, set a later at, or {WITHOUT_RANKING}"
        )
    return (*cuts, split_us)


def user_cuts(targets: Interactions, split: SplitConfig) -> tuple[Ints, ...]:
    """Return the moments of each user by a protocol of users; see :func:`choose_cuts`.

    A user's times are counted once each. Every snapshot holds out as many of them: the last, or a
    fifth. One time always remains before the first.
    """
    pairs = np.unique(np.stack([targets.user_rows, targets.timestamps_us], axis=1), axis=0)
    users, times_us = pairs.T
    counts = np.bincount(users, minlength=targets.n_users)
    starts = np.cumsum(counts) - counts
    last = split.protocol == "leave_one_out"
    held = np.ones_like(counts) if last else -(-counts // HELD_OUT)
    moments = [np.full(targets.n_users, np.iinfo(np.int64).max)]
    for step in range(1, split.n_cuts + 2):
        place = counts - step * held
        # Without a time before it, a user has the next moment again, and no answers in between.
        enough = place >= 1
        found = times_us[np.where(enough, starts + place, 0)] if len(times_us) else moments[0]
        moments.append(np.where(enough, found, moments[-1]))
    return tuple(moments[:0:-1])


def fold_cuts(targets: Interactions, split: SplitConfig, *, seed: int) -> tuple[Ints, ...]:
    """Return the moments of each user where a fold of the users is held out.

    From the users of the fold nothing is learned. All events of the others are before the split,
    and the cuts before it are those of ``user_cuts``. See :func:`choose_cuts`.

    Raises:
        DataError: If no user of the fold has two times, or no user is outside the fold.
    """
    held_out = np.array([fold_of(one, split.folds, seed) for one in targets.user_ids]) == split.fold
    by_user = user_cuts(targets, split)
    n_asked = int((held_out & (by_user[-1] < FOREVER_US)).sum())
    if not n_asked or held_out.all():
        raise DataError(
            f"fold {split.fold} of {split.folds} must have users with events of the target kinds "
            f"at two times or more, and leave users to learn from, got {n_asked} such users among "
            f"{held_out.sum()} of {targets.n_users}; set another [split] fold, folds or protocol"
        )
    forever = np.full(targets.n_users, FOREVER_US)
    return tuple(np.where(held_out, NEVER_US, one) for one in (*by_user[1:], forever))


def fold_of(user_id: str, folds: int, seed: int) -> int:
    """Return the fold of a user, which depends on nothing but the arguments."""
    digest = hashlib.blake2b(f"{seed} {user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % folds


def held_out_users(cuts_us: Sequence[Moment]) -> Bools | None:
    """Return from which users nothing is learned before the split (U,); None without any.

    Args:
        cuts_us: Moments that :func:`choose_cuts` returned.
    """
    held_out = np.asarray(cuts_us[-1]) == NEVER_US
    return held_out if held_out.any() else None


def asked_from(targets: Interactions, cuts_us: Sequence[Moment]) -> Moment:
    """Return the moment from which on events are the test set: the split, but for held-out users.

    The last fifth of each held-out user's times is asked for, given the events before it.

    Args:
        targets: All events of the kinds to recommend for.
        cuts_us: Moments that :func:`choose_cuts` returned.
    """
    held_out = held_out_users(cuts_us)
    if held_out is None:
        return cuts_us[-1]
    return np.where(held_out, user_cuts(targets, SplitConfig())[-1], FOREVER_US)


def _with_horizon(
    interactions: Interactions, targets: Interactions, split: SplitConfig
) -> SplitConfig:
    """Return the settings with a horizon: the time in which the last tenth of targets happened.

    It is shorter where that would hold so many visits of a user that nobody predicts them.
    """
    if split.horizon != AUTO:
        return split
    end_us = int(interactions.timestamps_us[-1]) + 1
    if split.at is not None:
        at = split.at if split.at.tzinfo else split.at.replace(tzinfo=UTC)
        targets, end_us = targets.before(round(at.timestamp() * 1e6)), round(at.timestamp() * 1e6)
    if not len(targets):
        return split.model_copy(update={"horizon": "30d"})
    start_us = int(targets.timestamps_us[int(len(targets) * (1 - TEST_SHARE))])
    last = targets.since(start_us)
    order = np.argsort(last.user_rows, kind="stable")
    users = last.user_rows[order]
    visits = visit_numbers(users, last.timestamps_us[order])
    n_visits = len(np.unique(visits)) / len(np.unique(users))
    window_us = (end_us - start_us) * min(1.0, MOST_VISITS / n_visits)
    hours = max(1, round(window_us / HOUR_US))
    horizon = f"{hours}h" if hours < 48 else f"{round(hours / 24)}d"
    return split.model_copy(update={"horizon": horizon})


def _time_cuts_if_any(
    interactions: Interactions, targets: Interactions, split: SplitConfig
) -> tuple[int, ...] | None:
    try:
        return time_cuts(interactions, _with_horizon(interactions, targets, split))
    except DataError:
        return None


def _too_few(
    interactions: Interactions,
    targets: Interactions,
    by_time: Sequence[Moment],
    by_user: Sequence[Moment],
) -> bool:
    """Return whether any window by time asks far fewer users than the windows by user do."""

    def n_asked(moment: Moment, end: Moment) -> int:
        known = np.unique(interactions.before(moment).user_rows)
        return len(np.intersect1d(known, targets.between(moment, end).user_rows))

    ends = [*by_time[1:], FOREVER_US]
    asked = min(n_asked(*pair) for pair in zip(by_time, ends, strict=True))
    return asked < LEAST_ASKED * n_asked(by_user[-1], FOREVER_US)


def check_windows(
    items: pl.DataFrame,
    interactions: Interactions,
    target_kinds: Sequence[str],
    cuts_us: Sequence[Moment],
) -> None:
    """Raise unless the ranker can learn something in every window between two cuts.

    Args:
        items: Table of ``ItemSchema``.
        interactions: All events.
        target_kinds: Event kinds to recommend for.
        cuts_us: Moments that :func:`choose_cuts` returned.

    Raises:
        DataError: If a window has no event of these kinds on an item that was on offer at its
            start, beside another item.
    """
    targets = interactions.of_kinds(target_kinds)
    for start, end in pairwise(cuts_us):
        offered = on_offer(items, interactions, start)
        if offered.sum() < 2 or not offered[targets.between(start, end).item_rows].any():
            by_time = isinstance(start, int)
            other = (
                "a longer [split] horizon, an earlier at or fewer n_cuts"
                if by_time
                else ('fewer [split] n_cuts, or protocol = "time"')
            )
            raise DataError(
                "the ranker must have events to learn from in every window between two cuts, got "
                f"none of {', '.join(target_kinds)} {_period(start, end)} on the "
                f"{offered.sum()} items on offer at its start; set {other}, or {WITHOUT_RANKING}"
            )


def _period(start: Moment, end: Moment) -> str:
    if isinstance(start, int) and isinstance(end, int):
        return f"from {from_us(start)} to {from_us(end)}"
    return "between two moments of a user"


def window_days(interactions: Interactions, cuts_us: Sequence[Moment]) -> float:
    """Return the period that ranking looks ahead, in days.

    It is the last window between two cuts. Where each user has cuts of their own, it is the time in
    which the last tenth of the events happened, without those of held-out users.
    """
    start, end = cuts_us[-2:]
    if not isinstance(start, int) or not isinstance(end, int):
        times_us = interactions.without_users(held_out_users(cuts_us)).timestamps_us
        start, end = (
            int(times_us[int(len(times_us) * (1 - TEST_SHARE))]),
            int(times_us[-1]) + HOUR_US,
        )
    return (end - start) / MICROSECONDS_PER_DAY


def on_offer(items: pl.DataFrame, interactions: Interactions, moment: Moment) -> NDArray[np.bool_]:
    """Return which items were on offer at a moment, bool (N,).

    An item is on offer from its creation; one of unknown age once somebody has met it. Where each
    user has a moment of their own, the moment is that of the last event before them all.

    Args:
        items: Table of ``ItemSchema``.
        interactions: Events, of which those before the moment count.
        moment: Moment of the requests.
    """
    past = interactions.before(moment)
    now_us = last_moment(moment, past)
    met = np.bincount(past.item_rows, minlength=past.n_items) > 0
    created = items["created_at"]
    by_age = (created.dt.timestamp("us") <= now_us).fill_null(False).to_numpy()
    return np.where(created.is_null().to_numpy(), met, by_age)


def _shorter(horizon_us: int) -> str:
    """Return advice to take at most this horizon; an empty string if it is below an hour."""
    hours = (horizon_us - 1) // HOUR_US
    if hours < 1:
        return ""
    longest = f"{hours // 24}d" if hours >= 24 else f"{hours}h"
    return f"set [split] horizon to at most {longest}, "
