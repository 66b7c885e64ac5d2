"""Events as dense arrays, which statistics, training and evaluation read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Bools, Ints
from recsys.errors import InvalidArgumentError

MICROSECONDS_PER_DAY = 86_400_000_000


class History(NamedTuple):
    """One user's events, oldest first; every field has shape (L,)."""

    item_rows: Ints
    kinds: Ints
    timestamps_us: Ints


# A moment of all users, or one of each user (U,), in microseconds UTC.
Moment = int | Ints

EMPTY_HISTORY = History(*(np.empty(0, dtype=np.int64) for _ in range(3)))


@dataclass(frozen=True)
class Interactions:
    """All events, oldest first; the array fields have shape (E,).

    Args:
        user_ids: User ids of the shop; the position is the user row.
        kind_names: Names of the event kinds; the position is the kind code.
        n_items: Catalogue size N.
        user_rows: User row of each event.
        item_rows: Item row of each event.
        kinds: Kind code of each event.
        timestamps_us: Time of each event, in microseconds since 1970-01-01 UTC.
        quantities: Units of each event, 1 where the table has no quantity.
    """

    user_ids: Sequence[str]
    kind_names: Sequence[str]
    n_items: int
    user_rows: Ints
    item_rows: Ints
    kinds: Ints
    timestamps_us: Ints
    quantities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.user_rows)

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return len(self.user_ids)

    def where(self, mask: NDArray[np.bool_]) -> "Interactions":
        """Return the events for which ``mask`` (E,) is true; users and items keep their rows."""
        return replace(
            self,
            user_rows=self.user_rows[mask],
            item_rows=self.item_rows[mask],
            kinds=self.kinds[mask],
            timestamps_us=self.timestamps_us[mask],
            quantities=self.quantities[mask],
        )

    def before(self, moment: Moment) -> "Interactions":
        """Return the events strictly before a moment, or before their user's moment."""
        return self.where(self.timestamps_us < self._of_events(moment))

    def since(self, moment: Moment) -> "Interactions":
        """Return the events at or after a moment, or their user's moment."""
        return self.where(self.timestamps_us >= self._of_events(moment))

    def between(self, start: Moment, end: Moment) -> "Interactions":
        """Return the events in [start, end)."""
        return self.since(start).before(end)

    def _of_events(self, moment: Moment) -> Moment:
        return moment[self.user_rows] if isinstance(moment, np.ndarray) else moment

    def without_users(self, left_out: Bools | None) -> "Interactions":
        """Return the events of the users who are not left out, bool (U,); None leaves out none."""
        return self if left_out is None else self.where(~left_out[self.user_rows])

    def of_kinds(self, names: Sequence[str]) -> "Interactions":
        """Return the events of the named kinds.

        Raises:
            InvalidArgumentError: If a kind is not in ``kind_names``.
        """
        unknown = sorted(set(names) - set(self.kind_names))
        if unknown:
            raise InvalidArgumentError(
                f"kinds must be among {sorted(self.kind_names)}, got {unknown}"
            )
        codes = [self.kind_names.index(name) for name in names]
        return self.where(np.isin(self.kinds, codes))

    def matrix(self) -> "sparse.csr_matrix":
        """Return 1.0 for each pair of a user and an item with an event, float32 (U, N)."""
        shape = (self.n_users, self.n_items)
        ones = np.ones(len(self), dtype=np.float32)
        matrix = sparse.csr_matrix((ones, (self.user_rows, self.item_rows)), shape=shape)
        matrix.data[:] = 1.0  # the constructor added repeated pairs up
        return matrix

    def histories(self) -> list[History]:
        """Return the history of every user, in user-row order (U entries)."""
        order = np.argsort(self.user_rows, kind="stable")  # stable keeps time order inside a user
        bounds = np.searchsorted(self.user_rows[order], np.arange(self.n_users + 1))
        columns = (self.item_rows[order], self.kinds[order], self.timestamps_us[order])
        return [
            History(*(column[start:end] for column in columns)) for start, end in pairwise(bounds)
        ]


def last_moment(moment: Moment, past: Interactions) -> int:
    """Return a moment that is the same for all users, else the one after the last past event.

    Args:
        moment: Moment of the requests.
        past: Events before it.
    """
    return moment if isinstance(moment, int) else int(past.timestamps_us.max(initial=0)) + 1


def merge_histories(bundled: History, live: History, item_ids: Sequence[str]) -> History:
    """Return a user's events of the bundle and the live ones as one history, (L,) with L events.

    Live events already in the bundle, or sent twice, are dropped: those with the same item, kind
    and timestamp. Repeats inside the bundle are kept, as in training, and so is the order of
    ``build_interactions``.

    Args:
        bundled: Events of the bundle, oldest first.
        live: Events recorded since, in any order.
        item_ids: Catalogue in row order.
    """
    if len(live.item_rows) == 0:
        return bundled
    both = History(*(np.concatenate(pair) for pair in zip(bundled, live, strict=True)))
    distinct, codes = np.unique(both.item_rows, return_inverse=True)
    names = np.array([item_ids[row] for row in distinct.tolist()])
    places = names.argsort().argsort()[codes]  # events of one moment are ordered by item id
    # The sort is stable, so a live event comes after its equal in the bundle.
    order = np.lexsort((both.kinds, places, both.timestamps_us))
    merged = History(*(column[order] for column in both))
    repeated = np.ones(len(order) - 1, dtype=np.bool_)
    for column in merged:
        repeated &= column[1:] == column[:-1]
    is_live = order >= len(bundled.item_rows)
    kept = np.append(True, ~(repeated & is_live[1:]))
    return History(*(column[kept] for column in merged))


def build_interactions(events: pl.DataFrame, item_ids: Sequence[str]) -> Interactions:
    """Return the events of a validated event table as dense arrays.

    Args:
        events: Table of ``EventSchema``; every ``item_id`` must be in ``item_ids``.
        item_ids: Ids of the catalogue, in row order.

    Raises:
        InvalidArgumentError: If an event has an item outside ``item_ids``.
    """
    events = events.sort("timestamp", "user_id", "item_id", "kind", maintain_order=True)
    user_ids = events["user_id"].unique().sort()
    kind_names = events["kind"].unique().sort()

    def codes(column: str, values: pl.Series) -> Ints:
        lookup = pl.DataFrame({column: values}).with_row_index("code")
        joined = events.select(column).join(lookup, on=column, how="left", maintain_order="left")
        if joined["code"].null_count():
            missing = joined.filter(pl.col("code").is_null())[column].unique()[:3].to_list()
            raise InvalidArgumentError(
                f"every {column} of events must be known, got unknown {missing}"
            )
        return joined["code"].cast(pl.Int64).to_numpy()

    return Interactions(
        user_ids=user_ids.to_list(),
        kind_names=kind_names.to_list(),
        n_items=len(item_ids),
        user_rows=codes("user_id", user_ids),
        item_rows=codes("item_id", pl.Series(item_ids, dtype=pl.String)),
        kinds=codes("kind", kind_names),
        timestamps_us=events["timestamp"].dt.timestamp("us").to_numpy(),
        quantities=events["quantity"].cast(pl.Float32).to_numpy(),
    )
