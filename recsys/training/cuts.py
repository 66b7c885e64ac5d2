"""The events that training reads, and the moments at which it cuts them."""

from datetime import UTC

from recsys.config import SplitConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import (
    MICROSECONDS_PER_DAY,
    Interactions,
    build_interactions,
)
from recsys.data.splits import cut_times
from recsys.errors import DataError


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
        split_us = round(at.timestamp() * 1e6)
    else:
        split_us = cut_times(end_us, split.horizon, 1)[0]
    cuts = cut_times(split_us, split.horizon, split.n_cuts)[::-1]
    if not interactions.timestamps_us[0] < cuts[0]:
        raise DataError(
            f"events must begin before the first of {split.n_cuts} cuts of {split.horizon}, "
            "got none before it; shorten [split] horizon, lower n_cuts, or set a later at"
        )
    return (*cuts, split_us)
