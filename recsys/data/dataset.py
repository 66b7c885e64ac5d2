"""The validated tables of one shop as one value, with a fingerprint of rows and pictures."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from recsys.config import DataConfig
from recsys.data.frames import Frame
from recsys.data.loading import (
    default_images_root,
    load_events,
    load_items,
    load_photos,
    load_relations,
)
from recsys.data.pictures import CheckImage
from recsys.data.progress import Progress
from recsys.data.quarantine import Loaded, Quarantine, TableReport, add_failures
from recsys.data.tables import Tables, find_files
from recsys.data.timestamps import to_us
from recsys.errors import ConfigError, DataError, InvalidArgumentError
from recsys.schema import ItemSchema
from vision.file_states import file_state

_ROWS_PER_HASH = 100_000  # limits the memory for text while a table is hashed
# For shops that have chosen no split. The other tenths are for training.
_SPLIT_OF_TENTH = {0: "val", 1: "test"}


@dataclass(frozen=True)
class Dataset:
    """Valid rows of the tables in ``recsys.schema``, and a report on the rows that were left out.

    Args:
        items: The catalogue, in the order of its table; empty if the shop has no such table.
        events: Users' events, None if the shop has no such table.
        photos: Customers' photos with their splits, None if the shop has no such table.
        images_root: Folder that picture paths are relative to; None if no row names a picture.
        quarantine: Rows that were left out, with the reasons.
        items_as_of_us: Time at which the items were exported, microseconds UTC; None if unknown.
        relations: Items that go together, None if the shop has no such table.
    """

    items: pl.DataFrame
    events: pl.DataFrame | None
    photos: pl.DataFrame | None
    images_root: Path | None
    quarantine: Quarantine
    items_as_of_us: int | None = None
    relations: pl.DataFrame | None = None

    def select_items(self, columns: Sequence[str]) -> "Dataset":
        """Return a copy with only these item columns, without events and relations."""
        return replace(self, items=self.items.select(columns), events=None, relations=None)

    def fingerprint(self) -> str:
        """Return a hash that changes when a table or a picture does, 64 hexadecimal digits.

        Equal rows have equal fingerprints, whether they came from files or DataFrames. Pictures
        count by size and time of change, as in build tools, because reading all pictures of a large
        catalogue takes as long as training on them. Copies that keep the time (``cp -p``, rsync,
        tar) have the same fingerprint.
        """
        digest = hashlib.sha256()
        for table in (self.items, self.events, self.photos, self.relations):
            for rows in table.iter_slices(_ROWS_PER_HASH) if table is not None else ():
                # Each line names its columns, so two tables never give the same lines.
                digest.update(rows.write_ndjson().encode())
        for line in self._picture_states():
            digest.update(line.encode())
        return digest.hexdigest()

    def _picture_states(self) -> Iterator[str]:
        if self.images_root is None:
            return
        tables = [table["image"] for table in (self.items, self.photos) if table is not None]
        for image in pl.concat(tables).drop_nulls().unique().sort():
            yield f"{image} {file_state(self.images_root / image)}\n"


def choose_tables(config: DataConfig, tables: Tables | None) -> Tables:
    """Return the tables that were passed, or else those that the configuration names.

    Args:
        config: Section [data] of the configuration.
        tables: Files or DataFrames that the caller passed, if any.

    Raises:
        ConfigError: If tables are neither passed nor configured, or both.
    """
    paths = config.model_dump(
        include={"items", "events", "photos", "relations", "images_root", "as_of"},
        exclude_none=True,
    )
    if tables is not None and paths:
        raise ConfigError(
            f"tables must be passed or named in [data], got both; remove {', '.join(paths)} from "
            "[data], or pass no tables"
        )
    if tables is not None:
        return tables
    if config.items is None and config.photos is None:
        raise ConfigError(
            "data.items must name the items table, got none; add it to [data] (or photos, for "
            "labelled photos alone), or pass tables=Tables(items=...) to train"
        )
    return Tables(
        config.items,
        config.events,
        config.photos,
        images_root=config.images_root or None,
        as_of=config.as_of,
        relations=config.relations,
    )


def load_dataset(
    tables: Tables,
    *,
    now: datetime,
    strict: bool = False,
    check_image: CheckImage | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the valid rows of a shop's tables; bad rows are in ``Dataset.quarantine``.

    Args:
        tables: Files or DataFrames.
        now: Current time, with a zone; later events are quarantined.
        strict: Whether to raise if any row is bad.
        check_image: Function that says why a file cannot be decoded. None checks that it exists.
        progress: Function called after each picture that was checked.

    Raises:
        DataError: If a table cannot be read, is empty, or has no valid row, or if ``strict`` and a
            row is bad.
        SchemaError: If a column is missing or has a type that cannot be read.
        InvalidArgumentError: If ``now`` or ``tables.as_of`` has no zone, or ``tables.as_of`` is
            later than ``now``.
    """
    dataset = _load(tables, now, check_image, progress)
    if strict:
        dataset.quarantine.require_empty()
    for report in dataset.quarantine.reports:
        if not report.n_valid:
            reasons = "\n  ".join(report.lines())
            raise DataError(f"table {report.table} must have a valid row, got none\n  {reasons}")
    return dataset


def check_tables(
    tables: Tables,
    *,
    now: datetime,
    check_image: CheckImage | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the valid rows and the report of validation, also for tables without a valid row.

    The arguments are those of ``load_dataset``, and so are the errors on tables that cannot be
    read.
    """
    return _load(tables, now, check_image, progress)


def _load(
    tables: Tables,
    now: datetime,
    check_image: CheckImage | None,
    progress: Progress | None,
) -> Dataset:
    root = _images_root(tables)
    as_of_us = _items_as_of_us(tables, now)  # before the files are read: they may be replaced
    items: pl.DataFrame = ItemSchema.create_empty()
    reports = []
    if tables.items is not None:
        items, report = load_items(
            tables.items, images_root=root, check_image=check_image, progress=progress
        )
        reports.append(report)
    events = photos = relations = None
    if tables.events is not None:
        events, report = load_events(tables.events, items["item_id"], now=now)
        items, reports[0] = _with_first_events(items, reports[0], events)
        reports.append(report)
    if tables.photos is not None:
        photos, report = load_photos(
            tables.photos,
            items["item_id"],
            images_root=root,
            check_image=check_image,
            progress=progress,
        )
        photos = _with_splits(photos)
        reports.append(report)
    if tables.relations is not None:
        relations, report = load_relations(tables.relations, items["item_id"])
        reports.append(report)
    pictured = photos is not None or items["image"].is_not_null().any()
    return Dataset(
        items=items,
        events=events,
        photos=photos,
        images_root=root if pictured else None,
        quarantine=Quarantine(tuple(reports)),
        items_as_of_us=as_of_us,
        relations=relations,
    )


def _items_as_of_us(tables: Tables, now: datetime) -> int | None:
    """Return the time at which the items were exported, never later than now; None without any."""
    now_us = to_us("now", now)
    if tables.as_of is not None:
        as_of_us = to_us("as_of", tables.as_of)
        if as_of_us > now_us:
            raise InvalidArgumentError(
                f"as_of must be the time at which the items were exported, at most now ({now}), "
                f"got {tables.as_of}; live changes until then would not count"
            )
        return as_of_us
    if tables.items is None:
        return None
    if isinstance(tables.items, Frame):
        return now_us
    # A file may come from a machine whose clock is ahead.
    return min(now_us, max(path.stat().st_mtime_ns // 1000 for path in find_files(tables.items)))


def _with_first_events(items: pl.DataFrame, report: TableReport, events: pl.DataFrame) -> Loaded:
    """Return items that begin no later than their first event, and a report of those that did.

    A shop that has moved may know only when each item came to the new system.
    """
    first = events.group_by("item_id").agg(first=pl.col("timestamp").min())
    rows = items.with_columns(report.used_rows()).join(
        first, on="item_id", how="left", maintain_order="left"
    )
    is_late = pl.col("created_at") > pl.col("first")
    late = rows.filter(is_late).with_columns(
        rule=pl.lit("created_at|first_event"), got=pl.col("created_at").cast(pl.String)
    )
    created_at = pl.when(is_late).then("first").otherwise("created_at")
    return Loaded(
        rows.with_columns(created_at=created_at).select(items.columns),
        replace(report, failures=add_failures(report.failures, late, kept=True)),
    )


def _images_root(tables: Tables) -> Path | None:
    if tables.images_root is not None:
        return Path(tables.images_root)
    first = tables.photos if tables.items is None else tables.items
    return None if first is None or isinstance(first, Frame) else default_images_root(first)


def _with_splits(photos: pl.DataFrame) -> pl.DataFrame:
    """Return the photos with a split for each of them.

    If the shop has put a photo into val or test, photos without a split are for training.
    Otherwise a hash of the name puts a tenth of the labelled photos without a split into val and
    another tenth into test.
    """
    if photos["split"].is_in(["val", "test"]).any():
        return photos.with_columns(pl.col("split").fill_null("train"))
    labelled = pl.col("item_id").is_not_null() | (pl.col("category").list.len() > 0)
    tenths = pl.Series(
        [int(hashlib.sha256(image.encode()).hexdigest(), 16) % 10 for image in photos["image"]],
        dtype=pl.Int64,
    )
    chosen = tenths.replace_strict(_SPLIT_OF_TENTH, default="train", return_dtype=pl.String)
    chosen_or_train = pl.when(labelled).then(chosen).otherwise(pl.lit("train"))
    return photos.with_columns(pl.col("split").fill_null(chosen_or_train))
