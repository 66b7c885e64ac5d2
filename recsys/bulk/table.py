"""Copy a table so that each part can be read without the rows before it."""

import hashlib
from pathlib import Path

import dataframely as dy
import numpy as np
import polars as pl

from recsys.data.files import whole_file
from recsys.data.loading import read_table
from recsys.data.tables import Source, find_files, reading
from recsys.errors import DataError


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of a table's files, in their order, 64 hexadecimal digits.

    Raises:
        DataError: If a name matches no file.
    """
    digest = hashlib.sha256()
    for path in find_files(source):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def copy_table(
    source: Source, schema: type[dy.Schema], path: Path, rows_per_part: int, *, table: str
) -> int:
    """Write the coerced rows of a table, one row group for each part; return the count.

    CSV and NDJSON can only be read from their beginning, and a Parquet file may be one row group of
    a million rows. In the copy, each part can be read alone.

    Args:
        source: A path, a glob, or a list of them; Parquet, CSV or NDJSON.
        schema: Schema of ``recsys.schema``.
        path: Path of the copy; an existing file is replaced.
        rows_per_part: Rows in a row group.
        table: Name of the table in error messages.

    Raises:
        DataError: If the table cannot be read or is empty.
        SchemaError: If a column is missing or has a type that cannot be read.
    """
    with whole_file(path) as scratch:

        def copy(rows: pl.LazyFrame) -> None:
            with reading(table):
                rows.sink_parquet(scratch, row_group_size=rows_per_part)

        read_table(source, schema, table, copy)
        n_rows = int(pl.scan_parquet(scratch, glob=False).select(pl.len()).collect().item())
        if not n_rows:
            raise DataError(f"table {table} must hold rows, got none")
    return n_rows


def repeated_rows(table: Path) -> pl.Series:
    """Return the rows, from 0 and in order, whose ``item_id`` is that of an earlier row.

    Memory holds a hash of every id, 16 bytes with the sorted copy. The ids themselves are compared
    only where two hashes are equal.

    Args:
        table: Copy that ``copy_table`` made.
    """
    row, item_id = pl.col("row"), pl.col("item_id")
    rows = pl.scan_parquet(table, glob=False).select("item_id").with_row_index("row")
    rows = rows.filter(item_id.is_not_null())
    hashes = rows.select(item_id.hash()).collect(engine="streaming").to_series()
    ordered = np.sort(hashes.to_numpy())  # a hash table of them takes far more memory
    suspects = pl.Series(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]), dtype=pl.UInt64)
    repeated = rows.filter(item_id.hash().is_in(suspects.implode())).select(
        row.filter(~item_id.is_first_distinct())
    )
    return repeated.collect(engine="streaming").to_series()
