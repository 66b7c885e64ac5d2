"""Convert a table as a shop stored it into the canonical columns and types."""

import difflib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import dataframely as dy
import polars as pl

from recsys.data.cells import PAIRS, PATH, READERS
from recsys.errors import SchemaError
from recsys.schema import BLANKS

logger = logging.getLogger(__name__)

# Values for a missing column or an empty cell. In other columns they become null.
_DEFAULTS: dict[str, pl.Expr] = {
    "category": pl.lit([], dtype=PATH),
    "attributes": pl.lit([], dtype=PAIRS),
    "available": pl.lit(True),
    "quantity": pl.lit(1.0),
}
# Columns whose values are cut or lowered, so that "u1 " is the user u1, and Purchase a purchase.
_CLEANED: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "user_id": lambda text: text.str.strip_chars(BLANKS),
    "item_id": lambda text: text.str.strip_chars(BLANKS),
    "kind": lambda text: text.str.strip_chars(BLANKS).str.to_lowercase(),
    "split": lambda text: text.str.strip_chars(BLANKS).str.to_lowercase(),
}


def refused(column: str) -> str:
    """Return the name of the column with the text of cells that cannot be read as ``column``."""
    return f"{column}|refused"


def coerce(frame: pl.LazyFrame, schema: type[dy.Schema], *, table: str | Path) -> pl.LazyFrame:
    """Return the canonical columns of ``frame``, each with a column of the cells that were refused.

    Missing optional columns and empty cells get their defaults, and columns outside the schema are
    dropped. A cell that cannot be read gets its default as well. Its text is kept in the column
    ``refused(name)``, so that the row can be quarantined. The rows are read later.

    Args:
        frame: Rows as they are stored.
        schema: Schema of ``recsys.schema``.
        table: Name of the table in error messages.

    Raises:
        SchemaError: If a required column is missing or a type cannot be read; lists all of them.
    """
    stored = frame.collect_schema()
    problems: list[str] = []
    columns: list[pl.Expr] = []
    for name, column in schema.columns().items():
        default = _DEFAULTS.get(name, pl.lit(None, dtype=column.dtype))
        if name not in stored:
            hint = _hint(name, stored, schema)
            if not column.nullable and name not in _DEFAULTS:
                problems.append(f"column {name!r} is missing{hint}")
            elif hint:
                logger.warning("%s has no column %r%s", table, name, hint)
            cells = None
        else:
            reader = READERS[column.dtype]
            cells = reader.read(name, stored[name])
            if cells is None:
                problems.append(f"column {name!r} must hold {reader.wants}, got {stored[name]}")
        value = default if cells is None else _clean(name, cells.value).fill_null(default)
        nothing = pl.lit(None, dtype=pl.String)
        bad = nothing if cells is None or cells.refused is None else cells.refused
        columns += [value.alias(name), bad.alias(refused(name))]
    if problems:
        raise SchemaError(f"{table}: {'; '.join(problems)}; its columns are {list(stored)}")
    return frame.select(columns)


def _clean(name: str, value: pl.Expr) -> pl.Expr:
    clean = _CLEANED.get(name)
    return value if clean is None else clean(value)


def _hint(name: str, stored: Iterable[str], schema: type[dy.Schema]) -> str:
    strangers = {column.lower(): column for column in stored if column not in schema.columns()}
    near = difflib.get_close_matches(name, strangers, n=1, cutoff=0.75)
    return f", {strangers[near[0]]!r} looks like it: rename it" if near else ""
