"""Bring a table, as somebody stored it, into the canonical columns and types."""

import difflib
import logging
from collections.abc import Iterable
from pathlib import Path

import dataframely as dy
import polars as pl

from recsys.data.cells import PAIRS, PATH, READERS
from recsys.errors import SchemaError

logger = logging.getLogger(__name__)

# What a missing column or an empty cell stands for; in other columns it is null.
_DEFAULTS: dict[str, pl.Expr] = {
    "category": pl.lit([], dtype=PATH),
    "attributes": pl.lit([], dtype=PAIRS),
    "available": pl.lit(True),
    "quantity": pl.lit(1.0),
}


def refused(column: str) -> str:
    """Return the name of the column that holds what could not be read as ``column``."""
    return f"{column}|refused"


def coerce(frame: pl.LazyFrame, schema: type[dy.Schema], *, table: str | Path) -> pl.LazyFrame:
    """Return the canonical columns of ``frame`` and, for each, what of it could not be read.

    Missing optional columns and empty cells get their defaults; columns outside the schema are
    dropped. A cell that cannot be read becomes its default too, and its text is kept in the column
    ``refused(name)`` so that the row can be quarantined. No row is read yet.

    Args:
        frame: Rows as they are stored.
        schema: One of ``recsys.schema``.
        table: What errors call the table.

    Raises:
        SchemaError: Lists every required column that is missing and every type that makes no sense.
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
        value = default if cells is None else cells.value.fill_null(default)
        nothing = pl.lit(None, dtype=pl.String)
        bad = nothing if cells is None or cells.refused is None else cells.refused
        columns += [value.alias(name), bad.alias(refused(name))]
    if problems:
        raise SchemaError(f"{table}: {'; '.join(problems)}; its columns are {list(stored)}")
    return frame.select(columns)


def _hint(name: str, stored: Iterable[str], schema: type[dy.Schema]) -> str:
    strangers = {column.lower(): column for column in stored if column not in schema.columns()}
    near = difflib.get_close_matches(name, strangers, n=1, cutoff=0.75)
    return f", {strangers[near[0]]!r} looks like it: rename it" if near else ""
