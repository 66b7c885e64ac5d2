"""The events that training reads, and the moments at which it cuts them."""

from collections.abc import Sequence
from datetime import UTC
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import SplitConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import (
    MICROSECONDS_PER_DAY,
    Interactions,
    build_interactions,
)
from recsys.data.splits import cut_times
from recsys.data.timestamps import from_us
from recsys.errors import DataError
from recsys.schema import EARLIEST_EVENT

HOUR_US = 3_600_000_000
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


def choose_cuts(interactions: Interactions | None, split: SplitConfig) -> tuple[int, ...]:
    """Return the moments of the snapshots, earliest first, and then the split.

    Empty without events.

    Raises:
        InvalidArgumentError: If the horizon is not a duration, or longer than the calendar.
        DataError: If no event is before the first snapshot.
    """
    if interactions is None:
        return ()
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


def check_windows(
    items: pl.DataFrame,
    interactions: Interactions,
    target_kinds: Sequence[str],
    cuts_us: Sequence[int],
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
    for start_us, end_us in pairwise(cuts_us):
        offered = on_offer(items, interactions, start_us)
        if offered.sum() < 2 or not offered[targets.between(start_us, end_us).item_rows].any():
            raise DataError(
                "the ranker must have events to learn from in every window between two cuts, got "
                f"none of {', '.join(target_kinds)} from {from_us(start_us)} to "
                f"{from_us(end_us)} on the {offered.sum()} items on offer at its start; set a "
                f"longer [split] horizon, an earlier at or fewer n_cuts, or {WITHOUT_RANKING}"
            )


def on_offer(items: pl.DataFrame, interactions: Interactions, now_us: int) -> NDArray[np.bool_]:
    """Return which items were on offer at a moment, bool (N,).

    An item is on offer from its creation; one of unknown age once somebody has met it.

    Args:
        items: Table of ``ItemSchema``.
        interactions: Events, of which those before the moment count.
        now_us: Moment, microseconds UTC.
    """
    past = interactions.before(now_us)
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
