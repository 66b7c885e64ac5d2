"""Convert a table as a shop stored it into the canonical columns and types."""

import difflib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import dataframely as dy
import polars as pl

from recsys.data.cells import PAIRS, PATH, Cells, find_reader, without_blank
from recsys.errors import SchemaError
from recsys.schema import BLANKS

logger = logging.getLogger(__name__)

# Values for a missing column or an empty cell. In other columns they become null.
_DEFAULTS: dict[str, pl.Expr] = {
    "category": pl.lit([], dtype=PATH),
    "attributes": pl.lit([], dtype=PAIRS),
    "available": pl.lit(True),
    "quantity": pl.lit(1.0),
    "weight": pl.lit(1.0),
}


def refused(column: str) -> str:
    """Return the name of the column with the text of cells that cannot be read as ``column``."""
    return f"{column}|refused"


def default_of(name: str, column: dy.Column) -> pl.Expr | None:
    """Return the value of an empty cell; None for a column that every row must have."""
    nothing = pl.lit(None, dtype=column.dtype) if column.nullable else None
    return _DEFAULTS.get(name, nothing)


def coerce(frame: pl.LazyFrame, schema: type[dy.Schema], *, table: str | Path) -> pl.LazyFrame:
    """Return the canonical columns of ``frame``, each with a column of the cells that were refused.

    Missing optional columns and empty cells get their defaults, and columns outside the schema are
    dropped. A cell that cannot be read gets its default as well. Its text is kept in the column
    ``refused(name)``, so that it can be reported. The rows are read later.

    Args:
        frame: Rows as they are stored. Names of columns may differ in case, and have blanks around.
        schema: Schema of ``recsys.schema``.
        table: Name of the table in error messages.

    Raises:
        SchemaError: If a required column is missing, a type cannot be read, or two columns have one
            name; lists all of them.
    """
    stored = frame.collect_schema()
    problems: list[str] = []
    values: list[pl.Expr] = []
    finished: list[pl.Expr] = []
    for name, column in schema.columns().items():
        default = default_of(name, column)
        cells = Cells(pl.lit(None, dtype=column.dtype))
        match _stored_names(name, stored):
            case [found]:
                reader = find_reader(name, column.dtype)
                read = reader.read(found, stored[found])
                if read is None:
                    problems.append(
                        f"column {found!r} must hold {reader.wants}, got {stored[found]}"
                    )
                cells = read or cells
            case []:
                hint = _hint(name, stored, schema)
                if default is None:
                    problems.append(f"column {name!r} is missing{hint}")
                elif hint:
                    logger.warning("%s has no column %r%s", table, name, hint)
            case several:
                problems.append(f"column {name!r} must be there once, got {several}; rename one")
        text = pl.lit(None, dtype=pl.String) if cells.text is None else cells.text
        values += [cells.value.alias(name), text.alias(refused(name))]
        if cells.text is not None:
            unread = pl.when(pl.col(name).is_null()).then(refused(name))
            finished.append(without_blank(unread).alias(refused(name)))
        if name in _DEFAULTS:
            finished.append(pl.col(name).fill_null(_DEFAULTS[name]))
    if problems:
        raise SchemaError(f"{table}: {'; '.join(problems)}; its columns are {list(stored)}")
    # In two steps, because what Python reads would be read once for each use.
    return frame.select(values).with_columns(finished)


def _stored_names(name: str, stored: Iterable[str]) -> list[str]:
    """Return the stored columns called ``name``; polars numbers the repeated names of a CSV."""
    exact = [one for one in stored if re.fullmatch(rf"{name}(_duplicated_\d+)?", one)]
    return exact or [one for one in stored if one.strip(BLANKS).lower() == name]


def _hint(name: str, stored: Iterable[str], schema: type[dy.Schema]) -> str:
    strangers = {column.lower(): column for column in stored if column not in schema.columns()}
    near = difflib.get_close_matches(name, strangers, n=1, cutoff=0.75)
    return f", {strangers[near[0]]!r} looks like it: rename it" if near else ""
