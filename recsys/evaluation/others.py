"""What a bundle is compared with beside the baselines: other bundles, and lists from elsewhere."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.data.arrays import Ints
from recsys.data.frames import Frame, describe_type
from recsys.data.interactions import Moment
from recsys.data.tables import Source
from recsys.data.timestamps import from_us
from recsys.errors import DataError, InvalidArgumentError
from recsys.evaluation.lists import read_list
from recsys.evaluation.protocol import MakeList, Scorer
from recsys.evaluation.results import Role
from recsys.evaluation.systems import System, recommender_scorers, split_moment

_EVENT = ("user_id", "item_id", "kind", "timestamp")


def other_systems(
    bundle: Bundle,
    *,
    bundles: Mapping[str, Bundle | str | Path] = {},
    lists: Mapping[str, Source | Frame] = {},
) -> list[System]:
    """Return other bundles and lists as systems that answer the queries of a bundle.

    Args:
        bundle: The bundle that the queries are of.
        bundles: Bundles with the same events after the split, by name.
        lists: Tables of recommendations as ``recsys.evaluation.lists.read_list`` reads them, by
            name.

    Raises:
        MissingPartError: If a bundle was trained without events.
        DataError: If a bundle has another split or other events after it, or a list cannot be used.
        InvalidArgumentError: If ``bundles`` or ``lists`` is not a mapping, or a list not a table.
    """
    for what, given in (("bundles", bundles), ("lists", lists)):
        if not isinstance(given, Mapping):
            raise InvalidArgumentError(
                f"{what} must be a mapping from names, such as {what}={{'other': …}}, got "
                f"{describe_type(given)}"
            )
    if not bundles and not lists:
        return []
    bundle.require("ranking")
    found = [
        bundle_system("bundle", name, one if isinstance(one, Bundle) else Bundle(one), bundle)
        for name, one in bundles.items()
    ]
    user_ids, item_ids = bundle.interactions.user_ids, bundle.items["item_id"].to_list()
    for name, source in lists.items():
        one = read_list(source, name=name, user_ids=user_ids, item_ids=item_ids)
        found.append(System("list", name, one.scores, one))
    return found


def bundle_system(role: Role, name: str, other: Bundle, bundle: Bundle) -> System:
    """Return another bundle as a system that answers the queries of a bundle.

    An item that only the other one has is not ranked, and one that it lacks is not recommended.

    Args:
        role: Role of the other bundle in tables.
        name: Name of the other bundle in tables.
        other: The other bundle.
        bundle: The bundle that the queries are of.

    Raises:
        MissingPartError: If the other was trained without events.
        DataError: If the other has another split, or other events after it.
    """
    other.require("ranking")
    _check_same_test(name, other, bundle)
    users = _rows_in(other.interactions.user_ids, bundle.interactions.user_ids)
    items = _rows_in(other.items["item_id"], bundle.items["item_id"])
    found = recommender_scorers(other)
    scorer = partial(_translated, found.scorer, users, items)
    discovery = found.discovery and partial(_translated, found.discovery, users, items)
    make_list = found.make_list and partial(_translated_list, found.make_list, users, items)
    return System(role, name, scorer, discovery=discovery, make_list=make_list)


def _translated(scorer: Scorer, users: Ints, items: Ints, user_rows: Ints) -> NDArray[np.float32]:
    """Return the scores of the other bundle in the rows of ours; minus infinity where it has none.

    Args:
        scorer: Scorer in the rows of the other.
        users: The other's row of each of our users; -1 without one.
        items: The other's row of each of our items; -1 without one.
        user_rows: Our users to score.
    """
    scores = scorer(users[user_rows])
    if len(items) == scores.shape[1] and np.array_equal(items, np.arange(len(items))):
        return scores
    return np.where(items >= 0, scores[:, items], np.float32(-np.inf))


def _translated_list(
    make_list: MakeList, users: Ints, items: Ints, user_row: int, rows: Ints, k: int
) -> Ints:
    """Return the list that the other bundle makes of items of ours, in rows of ours.

    Args:
        make_list: What makes lists in the rows of the other.
        users: As for ``_translated``.
        items: As for ``_translated``.
        user_row: Our user.
        rows: Our items, best first, all of which the other has.
        k: Number of items that are shown.
    """
    theirs = items[rows]
    ours = dict(zip(theirs.tolist(), rows.tolist(), strict=True))
    shown = make_list(int(users[user_row]), theirs, k)
    return np.array([ours[row] for row in shown.tolist()], dtype=np.int64)


def _check_same_test(name: str, other: Bundle, bundle: Bundle) -> None:
    """Raise unless both bundles are tested by the same events.

    Raises:
        DataError: If they are not.
    """
    if not np.array_equal(split_moment(other), split_moment(bundle)):
        moments = [_words(split_moment(one)) for one in (bundle, other)]
        raise DataError(
            f"bundle {name} must have the split of the first, {moments[0]}, got {moments[1]}; "
            "train both on the same tables with the same [split]"
        )
    ours, theirs = _later_events(bundle), _later_events(other)
    if not ours.equals(theirs):
        n_common = len(ours.join(theirs.unique(), on=_EVENT, how="semi"))
        raise DataError(
            f"bundle {name} must have the events of the first after the split, {len(ours):,}, got "
            f"{len(theirs):,}, of which {n_common:,} are the same; train both on the same events"
        )


def _words(moment: Moment) -> str:
    return from_us(moment).isoformat() if isinstance(moment, int) else "a moment of each user"


def _later_events(bundle: Bundle) -> pl.DataFrame:
    """Return the events that a bundle is tested by, in an order that depends on nothing else."""
    events = bundle.interactions
    events = events.since(split_moment(bundle))
    items = bundle.items["item_id"]
    table = {
        "user_id": pl.Series(events.user_ids, dtype=pl.String).gather(events.user_rows),
        "item_id": items.gather(events.item_rows),
        "kind": pl.Series(events.kind_names, dtype=pl.String).gather(events.kinds),
        "timestamp": events.timestamps_us,
    }
    return pl.DataFrame(table).sort(_EVENT)


def _rows_in(theirs: Iterable[str], ours: Iterable[str]) -> Ints:
    """Return their row of each of our ids, int64; -1 without one."""
    known = pl.DataFrame({"id": list(theirs)}, schema={"id": pl.String}).with_row_index("row")
    asked = pl.DataFrame({"id": list(ours)}, schema={"id": pl.String})
    found = asked.join(known, on="id", how="left", maintain_order="left")
    return found["row"].cast(pl.Int64).fill_null(-1).to_numpy()
