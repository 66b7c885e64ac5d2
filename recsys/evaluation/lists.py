"""Lists of recommendations that another system made, as answers to the queries of a bundle."""

from collections.abc import Sequence
from dataclasses import dataclass

import dataframely as dy
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.arrays import Doubles, Floats, Ints
from recsys.data.frames import Frame
from recsys.data.tables import Source
from recsys.errors import DataError
from recsys.evaluation.foreign import is_given, read_rows, require_rows
from recsys.evaluation.queries import Queries


class ListSchema(dy.Schema):
    """One row per recommendation; a row has a score or a rank."""

    user_id = dy.String(description="Key of the user.")
    item_id = dy.String(description="Key of the item.")
    score = dy.Float64(nullable=True, description="Higher is better.")
    rank = dy.Float64(nullable=True, description="Lower is better; read where there is no score.")
    probability = dy.Float64(nullable=True, description="Probability that the user takes the item.")


@dataclass(frozen=True)
class ListCounts:
    """What of a list was removed, and whom it does not serve.

    Args:
        rows: Rows of the table.
        repeated: Rows that repeat a user and item; the best of them stays.
        unknown_users: Rows of users that the bundle has no event of.
        unknown_items: Rows of items that are not in the bundle's catalogue.
        not_on_offer: Rows of known items that are not among the scope's candidates.
        taken_before: Rows of items that the user had taken before, in the scope ``new``.
        users_without: Asked users without any row; they score 0.
        users_short: Asked users with rows, of which fewer than k are left; the other places are
            wrong.
    """

    rows: int
    repeated: int
    unknown_users: int
    unknown_items: int
    not_on_offer: int
    taken_before: int
    users_without: int
    users_short: int

    def sentence(self) -> str:
        """Return what a reader of the scores must know, such as ``removed rows: 3 repeated``."""
        removed = {
            "repeated": self.repeated,
            "of unknown users": self.unknown_users,
            "of unknown items": self.unknown_items,
            "not on offer": self.not_on_offer,
            "taken before": self.taken_before,
        }
        parts = [f"{count:,} {what}" for what, count in removed.items() if count]
        users = {
            "users without a list, who score 0": self.users_without,
            "users with fewer than k items": self.users_short,
        }
        said = [f"removed rows: {', '.join(parts) or 'none'}"]
        return "; ".join(said + [f"{what}: {count:,}" for what, count in users.items() if count])


@dataclass(frozen=True, eq=False)
class ForeignList:
    """A list in the rows of a bundle, best first for each user; the array fields have shape (R,).

    Args:
        n_items: Catalogue size N.
        starts: Where each user's rows begin, (U + 1,).
        item_rows: Item of each row.
        places: Place of each row in its user's list, from 0; equal scores share a place.
        probabilities: Probability of each row, NaN for a row without; None where no row has one.
        rows: Rows of the table, before anything was removed.
        repeated: As in ``ListCounts``, like the two fields that follow.
        unknown_users: Rows of unknown users.
        unknown_items: Rows of unknown items.
    """

    n_items: int
    starts: Ints
    item_rows: Ints
    places: Ints
    probabilities: Doubles | None
    rows: int
    repeated: int
    unknown_users: int
    unknown_items: int

    def scores(self, user_rows: Ints) -> Floats:
        """Return minus the place of every listed item, minus infinity for all others, (B, N)."""
        scores = np.full((len(user_rows), self.n_items), -np.inf, dtype=np.float32)
        users, rows = self._rows_of(user_rows)
        scores[users, self.item_rows[rows]] = -self.places[rows]
        return scores

    def counts(self, queries: Queries, k: int) -> ListCounts:
        """Return what was removed for these queries, and how many users get fewer than k items."""
        users, rows = self._rows_of(queries.user_rows)
        offered, taken = self._judged(queries, users, rows)
        listed = np.bincount(users, minlength=len(queries))
        kept = np.bincount(users[offered & ~taken], minlength=len(queries))
        return ListCounts(
            rows=self.rows,
            repeated=self.repeated,
            unknown_users=self.unknown_users,
            unknown_items=self.unknown_items,
            not_on_offer=int((~offered).sum()),
            taken_before=int(taken.sum()),
            users_without=int((listed == 0).sum()),
            users_short=int(((listed > 0) & (kept < k)).sum()),
        )

    def kept(self, queries: Queries) -> tuple[Ints, Ints]:
        """Return the position in the queries of the user of each row that counts, and the row."""
        users, rows = self._rows_of(queries.user_rows)
        offered, taken = self._judged(queries, users, rows)
        return users[offered & ~taken], rows[offered & ~taken]

    def _judged(
        self, queries: Queries, users: Ints, rows: Ints
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which rows have a candidate, and which of these the user had taken before."""
        items = self.item_rows[rows]
        offered = queries.candidates[items]
        return offered, offered & is_among(users, items, queries.excluded, self.n_items)

    def _rows_of(self, user_rows: Ints) -> tuple[Ints, Ints]:
        """Return the position in ``user_rows`` of the user of each row of theirs, and the row."""
        lengths = self.starts[user_rows + 1] - self.starts[user_rows]
        users = np.repeat(np.arange(len(user_rows)), lengths)
        firsts = np.repeat(self.starts[user_rows] - (np.cumsum(lengths) - lengths), lengths)
        return users, firsts + np.arange(len(users))


def read_list(
    source: Source | Frame, *, name: str, user_ids: Sequence[str], item_ids: Sequence[str]
) -> ForeignList:
    """Return a table of recommendations as a list in the rows of a bundle.

    The columns are user_id, item_id, and score or rank; where there are both, the score counts, as
    in trec_eval. Equal scores are ties, which are put in the order in which every system's ties
    are. Of a repeated user and item, the best row stays. Rows of unknown users and items are
    removed; the items after them move up.

    Args:
        source: A Parquet, CSV or NDJSON file, a glob, a list of them, or a DataFrame.
        name: Name of the list in error messages.
        user_ids: User ids of the bundle, in row order.
        item_ids: Item ids of the bundle, in row order.

    Raises:
        DataError: If the table cannot be read, an id, score or rank is missing or is not a finite
            number, or a probability is outside 0 and 1.
        SchemaError: If a column is missing or has a type that cannot be read.
    """
    read = read_rows(source, ListSchema, table=f"list {name}")
    order = _check(read, f"list {name}")
    columns = read.select("user_id", "item_id", "probability", key=order)
    known = _with_rows(columns, user_ids, item_ids)
    ranked = known.drop_nulls(["user", "item"]).sort("user", "key", maintain_order=True)
    distinct = ranked.unique(["user", "item"], keep="first", maintain_order=True)
    place = pl.col("key").rank("dense").over("user").cast(pl.Int64) - 1
    given = read["probability"].null_count() < len(read)
    users = distinct["user"].to_numpy()
    return ForeignList(
        n_items=len(item_ids),
        starts=np.searchsorted(users, np.arange(len(user_ids) + 1)),
        item_rows=distinct["item"].to_numpy(),
        places=distinct.select(place).to_series().to_numpy(),
        probabilities=distinct["probability"].to_numpy() if given else None,
        rows=len(read),
        repeated=len(ranked) - len(distinct),
        unknown_users=known["user"].null_count(),
        unknown_items=known.filter(pl.col("user").is_not_null())["item"].null_count(),
    )


def _check(read: pl.DataFrame, table: str) -> pl.Expr:
    """Raise on a bad cell; return the expression by which rising rows of a list are ordered."""
    by = next((one for one in ("score", "rank") if is_given(read, one)), None)
    if by is None:
        raise DataError(f"{table} must have a column 'score' or 'rank' with numbers, got neither")
    rules = {
        "user_id": (pl.col("user_id").is_not_null(), "must be an id"),
        "item_id": (pl.col("item_id").is_not_null(), "must be an id"),
        by: (pl.col(by).is_finite(), "must be a finite number"),
    }
    if is_given(read, "probability"):
        stated = pl.col("probability")
        rules["probability"] = stated.is_null() | stated.is_between(0, 1), "must be from 0 to 1"
    for column, (valid, wanted) in rules.items():
        require_rows(read, valid, column=column, wanted=wanted, table=table)
    return -pl.col("score") if by == "score" else pl.col("rank")


def _with_rows(
    read: pl.DataFrame, user_ids: Sequence[str], item_ids: Sequence[str]
) -> pl.DataFrame:
    """Return the table with the user's and the item's row, null where unknown."""
    for column, row, ids in (("user_id", "user", user_ids), ("item_id", "item", item_ids)):
        known = pl.DataFrame({column: pl.Series(ids, dtype=pl.String)}).with_row_index(row)
        known = known.with_columns(pl.col(row).cast(pl.Int64))
        read = read.join(known, on=column, how="left", maintain_order="left")
    return read


def is_among(users: Ints, items: Ints, sets: Sequence[Ints], n_items: int) -> NDArray[np.bool_]:
    """Return whether each item is in the set of its user, bool (R,).

    Args:
        users: Position in ``sets`` of each item's user (R,).
        items: Item rows (R,).
        sets: Per user, item rows.
        n_items: Catalogue size N.
    """
    owners = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    pairs = owners * n_items + np.concatenate([*sets, np.empty(0, dtype=np.int64)])
    return np.isin(users * n_items + items, pairs)
