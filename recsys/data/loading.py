"""Load and validate each of the three tables."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import dataframely as dy
import polars as pl

from recsys.data.coercion import coerce
from recsys.data.frames import Frame, to_polars
from recsys.data.pictures import CheckedPictures, CheckImage, check_pictures, failures_with
from recsys.data.progress import Progress
from recsys.data.quarantine import ROW, Loaded, validate
from recsys.data.tables import Source, find_files, scan_file
from recsys.errors import InvalidArgumentError
from recsys.schema import EventSchema, ItemSchema, PhotoSchema, is_first_of_its_id


def scan_table(source: Source, schema: type[dy.Schema]) -> pl.LazyFrame:
    """Return the coerced rows of all files of a table; files may differ in columns and types.

    Args:
        source: A path, a glob, or a list of them.
        schema: Schema of ``recsys.schema``.

    Raises:
        DataError: If a file is missing or damaged.
        SchemaError: If a file lacks a required column, or has a type that cannot be read.
    """
    frames = [coerce(scan_file(path), schema, table=path) for path in find_files(source)]
    return pl.concat(frames)


def _scan(source: Source | Frame, schema: type[dy.Schema], table: str) -> pl.LazyFrame:
    """Return the coerced rows of a table, be it files or a DataFrame."""
    if isinstance(source, Frame):
        return coerce(to_polars(source, table=table).lazy(), schema, table=f"table {table}")
    return scan_table(source, schema)


def load_items(
    source: Source | Frame,
    *,
    images_root: Path | None = None,
    check_image: CheckImage | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Return the valid items in the order of the table.

    An item with a bad picture stays, without the picture, and is reported.

    Args:
        source: A path, a glob, a list of them, or a DataFrame.
        images_root: Folder that picture paths are relative to; None if no picture can be found.
        check_image: Function that says why a file cannot be decoded. None checks that it exists.
        progress: Function called after each picture that was checked.

    Raises:
        DataError: If the table cannot be read or is empty, or if pictures are named and
            ``images_root`` is not a folder.
        SchemaError: If a column is missing or has a type that cannot be read.
    """
    table = _scan(source, ItemSchema, "items")
    loaded = check_items(table, images_root, rules={}, check_image=check_image, progress=progress)
    return loaded._replace(frame=loaded.frame.drop(ROW))


def check_items(
    table: pl.LazyFrame,
    images_root: Path | None,
    *,
    rules: Mapping[str, pl.Expr],
    check_image: CheckImage | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Return the valid rows of scanned items, numbered by ROW; pictures as in ``load_items``.

    Args:
        table: Result of ``scan_table``, or some rows of it.
        images_root: Folder that picture paths are relative to; None if no picture can be found.
        rules: Rules over the rows, by name; ``item_id_is_unique`` replaces the usual one.
        check_image: As in ``load_items``.
        progress: As in ``load_items``.

    Raises:
        DataError: If the table cannot be read or is empty, or if pictures are named and
            ``images_root`` is not a folder.
    """
    rules = {"item_id_is_unique": is_first_of_its_id(pl.col("item_id")), **rules}
    loaded = validate(table, ItemSchema, table="items", rules=rules)
    checked = _check_pictures(loaded, images_root, check_image, progress)
    report = replace(loaded.report, failures=failures_with(loaded, checked.broken))
    image = pl.when(~pl.col("image").is_in(list(checked.broken))).then("image")
    return Loaded(loaded.frame.with_columns(image=image.replace(checked.renamed)), report)


def default_images_root(source: Source) -> Path:
    """Return the folder of a table's first file."""
    return find_files(source)[0].parent


def load_events(source: Source | Frame, item_ids: pl.Series, *, now: datetime) -> Loaded:
    """Return the valid events in the order of the table.

    Args:
        source: A path, a glob, a list of them, or a DataFrame.
        item_ids: Ids of the valid items; events of other items are quarantined.
        now: Current time, with a zone; later events are quarantined.

    Raises:
        DataError: If the table cannot be read or is empty.
        SchemaError: If a column is missing or has a type that cannot be read.
        InvalidArgumentError: If ``now`` has no zone.
    """
    if now.tzinfo is None:
        raise InvalidArgumentError(f"now must have a time zone, got {now}; add tzinfo=datetime.UTC")
    rules = {
        "item_id|known": pl.col("item_id").is_in(item_ids.implode()),
        "timestamp|not_future": pl.col("timestamp") <= now,
    }
    loaded = validate(
        _scan(source, EventSchema, "events"), EventSchema, table="events", rules=rules
    )
    return Loaded(loaded.frame.drop(ROW), loaded.report)


def load_photos(
    source: Source | Frame,
    item_ids: pl.Series,
    *,
    images_root: Path | None,
    check_image: CheckImage | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Return the valid photos in the order of the table; one with a bad picture is quarantined.

    Args:
        source: A path, a glob, a list of them, or a DataFrame.
        item_ids: Ids of the valid items; photos of other items are quarantined.
        images_root: Folder that picture paths are relative to; None if no picture can be found.
        check_image: Function that says why a file cannot be decoded. None checks that it exists.
        progress: Function called after each picture that was checked.

    Raises:
        DataError: If the table cannot be read or is empty, or if pictures are named and
            ``images_root`` is not a folder.
        SchemaError: If a column is missing or has a type that cannot be read.
    """
    rules = {"item_id|known": pl.col("item_id").is_in(item_ids.implode())}
    loaded = validate(
        _scan(source, PhotoSchema, "photos"), PhotoSchema, table="photos", rules=rules
    )
    checked = _check_pictures(loaded, images_root, check_image, progress)
    photos = loaded.frame.filter(~pl.col("image").is_in(list(checked.broken))).drop(ROW)
    photos = photos.with_columns(pl.col("image").replace(checked.renamed))
    failures = failures_with(loaded, checked.broken)
    return Loaded(photos, replace(loaded.report, n_valid=len(photos), failures=failures))


def _check_pictures(
    loaded: Loaded, root: Path | None, check_image: CheckImage | None, progress: Progress | None
) -> CheckedPictures:
    names = loaded.frame["image"].drop_nulls().unique(maintain_order=True)
    return check_pictures(names, root, check_image=check_image, progress=progress)
