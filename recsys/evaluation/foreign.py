"""Read tables that other systems made, and refuse bad cells in words that name them."""

from collections.abc import Sequence
from pathlib import Path

import dataframely as dy
import polars as pl

from recsys.data.coercion import refused
from recsys.data.frames import Frame, describe_type
from recsys.data.loading import read_table
from recsys.data.tables import Source, reading
from recsys.errors import DataError, InvalidArgumentError


def read_rows(source: Source | Frame, schema: type[dy.Schema], *, table: str) -> pl.DataFrame:
    """Return all rows of a table, with a column ``refused(name)`` beside each column.

    Args:
        source: A Parquet, CSV or NDJSON file, a glob, a list of them, or a DataFrame.
        schema: Columns and types.
        table: Name of the table in error messages.

    Raises:
        DataError: If the table cannot be read or has no rows.
        SchemaError: If a column is missing or has a type that cannot be read.
        InvalidArgumentError: If the source is neither files nor a DataFrame.
    """
    if not isinstance(source, str | Path | Sequence | Frame):
        raise InvalidArgumentError(
            f"{table} must be a path, a glob, a list of them, or a DataFrame of polars, pandas or "
            f"another library with the Arrow interface, got {describe_type(source)}"
        )

    def collect(rows: pl.LazyFrame) -> pl.DataFrame:
        with reading(table):
            return rows.collect()

    read = read_table(source, schema, table, collect)
    if not len(read):
        raise DataError(f"{table} must hold rows, got none")
    return read


def is_given(read: pl.DataFrame, column: str) -> bool:
    """Return whether any cell of a column holds something, be it readable or not."""
    return any(read[name].null_count() < len(read) for name in (column, refused(column)))


def require_rows(
    read: pl.DataFrame, valid: pl.Expr, *, column: str, wanted: str, table: str
) -> None:
    """Raise if a row breaks a rule.

    Args:
        read: Result of ``read_rows``.
        valid: Whether a row is as it should be; null counts as not.
        column: Column that the rule is about.
        wanted: What the cell must be, such as ``must be a finite number``.
        table: Name of the table in the message.

    Raises:
        DataError: If a row breaks the rule; names the first, what it has, and how many there are.
    """
    bad = read.with_row_index("row", offset=1).filter(~valid.fill_null(False))
    if not len(bad):
        return
    text, cell = bad[refused(column)][0], bad[column][0]
    got = repr(text) if text is not None else "an empty cell" if cell is None else repr(cell)
    raise DataError(
        f"{table}: {column} {wanted}, got {got} in row {bad['row'][0]}, and {len(bad):,} such rows "
        f"of {len(read):,}; remove or mend them"
    )
