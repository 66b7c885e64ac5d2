"""Groups of users by which quality is looked at: it may be good on average and bad for some."""

from collections.abc import Mapping, Sequence

import dataframely as dy
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.arrays import Doubles, Ints
from recsys.data.frames import Frame, to_polars
from recsys.data.interactions import Interactions
from recsys.data.tables import Source, find_files, reading, scan_file
from recsys.errors import DataError
from recsys.evaluation.exposure import popularity_percentiles
from recsys.evaluation.facts import MAX_LABELS, ItemFacts, label_values, thirds
from recsys.evaluation.foreign import read_rows, require_rows
from recsys.evaluation.queries import Queries

# One label for each user of the queries (U,), by what the users are grouped by.
UserLabels = Mapping[str, Sequence[str]]
NO_LABELS: UserLabels = {}
COUNTED = (
    *("activity", "answers taken before"),
    *("answers nobody had taken", "popularity of the answers"),
)
TABLE = "users"


class UserSchema(dy.Schema):
    """One row per user; all other columns group the users."""

    user_id = dy.String(description="Key of the user.")


def read_users(source: Source | Frame, user_ids: Sequence[str]) -> UserLabels:
    """Return a label for each user (U,), by every other column of a table with ``user_id``.

    Numbers of many values become thirds, rare words become "other", and an empty cell or a user
    whom the table lacks is "unknown".

    Args:
        source: A Parquet, CSV or NDJSON file, a glob, a list of them, or a DataFrame.
        user_ids: User ids of the bundle, in row order.

    Raises:
        DataError: If the table cannot be read, has no column beside ``user_id``, has one that is
            nested or named as a group that is counted, or a user is missing or occurs twice.
        SchemaError: If the table lacks a column ``user_id``.
    """
    if not isinstance(source, Frame):
        with reading(TABLE):
            files = [scan_file(path) for path in find_files(source)]
            source = pl.concat(files, how="diagonal_relaxed").collect()
    rows = to_polars(source, table=TABLE)
    ids = read_rows(rows, UserSchema, table=TABLE)
    once = pl.col("user_id").is_not_null() & pl.col("user_id").is_first_distinct()
    require_rows(ids, once, column="user_id", wanted="must be an id, once", table=TABLE)
    columns = rows.drop("user_id")
    wrong = [one.name for one in columns if one.dtype.is_nested() or one.name in COUNTED]
    if wrong or not columns.width:
        raise DataError(
            f"{TABLE} must have columns beside user_id that hold words or numbers, named other "
            f"than {list(COUNTED)}, got {wrong or 'none'}"
        )
    known = columns.with_columns(ids["user_id"])
    asked = pl.DataFrame({"user_id": pl.Series(user_ids, dtype=pl.String)})
    joined = asked.join(known, on="user_id", how="left", maintain_order="left")
    return {name: label_values(_plain(joined[name])) for name in columns.columns}


def _plain(values: pl.Series) -> pl.Series:
    """Return a column as numbers if they are many, also where a text file holds them; else words.

    Flags and codes of few values are groups as they are.
    """
    numbers = values.cast(pl.Float64, strict=False) if values.dtype == pl.String else values
    is_numeric = numbers.dtype.is_numeric() and numbers.null_count() == values.null_count()
    return numbers if is_numeric and values.n_unique() > MAX_LABELS else values.cast(pl.String)


def label_users(
    queries: Queries,
    before: Interactions,
    taken: Interactions,
    facts: ItemFacts,
    given: UserLabels = NO_LABELS,
) -> UserLabels:
    """Return the labels of the users, by "activity" and by what their answers are like.

    The names are ``COUNTED``:

    - ``activity``: low, middle and high thirds by the number of events before the split.
    - ``answers taken before``: none, some or all of the user's answers.
    - ``answers nobody had taken``: whether one of the answers had not been taken by anybody.
    - ``popularity of the answers``: low, middle and high thirds by the mean percentile.

    A grouping with one label is left out.

    Args:
        queries: Queries of one scope.
        before: Events before the split.
        taken: Those of the target kinds.
        facts: Facts about the items.
        given: Labels of all users of the bundle by other groupings, which come last.
    """
    owners, answers = flat_answers(queries)
    events = np.bincount(before.user_rows, minlength=before.n_users)[queries.user_rows]
    pairs = queries.user_rows[owners] * taken.n_items + answers
    again = np.isin(pairs, taken.user_rows * taken.n_items + taken.item_rows)
    repeats = np.bincount(owners, weights=again) / np.bincount(owners)
    cold = means_by_user(queries, facts.buyers == 0) > 0
    percentiles = popularity_percentiles(facts.buyers, queries.candidates)
    labels = {
        "activity": thirds(events.astype(np.float64)),
        "answers taken before": [
            "none" if share == 0 else "all" if share == 1 else "some" for share in repeats
        ],
        "answers nobody had taken": ["yes" if one else "no" for one in cold],
        "popularity of the answers": thirds(means_by_user(queries, percentiles)),
        **{name: [own[row] for row in queries.user_rows] for name, own in given.items()},
    }
    return {name: values for name, values in labels.items() if len(set(values)) > 1}


def flat_answers(queries: Queries) -> tuple[Ints, Ints]:
    """Return all answers as item rows, and the position of the user that each belongs to."""
    counts = [len(rows) for rows in queries.relevant]
    return np.repeat(np.arange(len(queries)), counts), np.concatenate(queries.relevant)


def means_by_user(queries: Queries, values: NDArray[np.generic]) -> Doubles:
    """Return the mean over each user's answers (U,) of one value per item (N,)."""
    owners, answers = flat_answers(queries)
    sums = np.bincount(owners, weights=values[answers].astype(np.float64))
    return sums / np.bincount(owners)
