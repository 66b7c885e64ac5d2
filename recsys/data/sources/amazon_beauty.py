"""Amazon Beauty, 5-core: reviews in each user's order, with titles and attributes."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from recsys.data.progress import Progress
from recsys.data.sources.staging import Imported, require_columns, staging, write_tables
from recsys.data.tables import reading

_START = datetime(2014, 1, 1, tzinfo=UTC)


def import_amazon_beauty(src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write the reviews that sequential-recommendation papers rank by as tables.

    The published table has the order of each user's events and no times. **The timestamps are made
    up**: one day per position from 2014-01-01 on. They order one user's events and say nothing
    across users, so split by ``leave_last_out`` and never by time. The preprocessing is that of
    Zhou et al. (2020, https://arxiv.org/abs/2008.07873).

    Args:
        src: Folder with ``items.parquet`` (item_id, asin, title, attributes) and
            ``events.parquet`` (user_id, item_id, position).
        out: Folder to make; it gets tables of the same names.
        progress: Ignored, because the import takes a second.

    Raises:
        DataError: If a table cannot be read.
        SchemaError: If a published table lacks a column.
        InvalidArgumentError: If ``out`` is in use.
    """
    items = _read(src / "items.parquet", ("item_id", "asin", "title", "attributes"))
    events = _read(src / "events.parquet", ("user_id", "item_id", "position"))
    with staging(out) as scratch:
        return write_tables(scratch, out, items=_items(items), events=_events(events))


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    with reading(path):
        table = pl.read_parquet(path, glob=False)
    require_columns(table, columns, src=path)
    return table


def _items(items: pl.DataFrame) -> pl.DataFrame:
    """Return the items; each of its nameless attribute ids is an attribute that says "yes"."""
    ids = pl.element().cast(pl.String)
    pairs = pl.col("attributes").list.eval(
        pl.struct(key=pl.format("attribute_{}", ids), value=pl.lit("yes"))
    )
    return items.select("item_id", "title", attributes=pairs)


def _events(events: pl.DataFrame) -> pl.DataFrame:
    timestamp = pl.lit(_START) + pl.duration(days=pl.col("position"))
    return events.select(
        "user_id", "item_id", kind=pl.lit("review"), timestamp=timestamp.dt.cast_time_unit("us")
    ).sort("timestamp", "user_id")
