"""Load and validate each of the tables."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import dataframely as dy
import polars as pl

from recsys.data.coercion import coerce
from recsys.data.frames import Frame, to_polars
from recsys.data.pictures import CheckedPictures, CheckImage, check_pictures, failures_with
from recsys.data.progress import Progress
from recsys.data.quarantine import ROW, Loaded, TableReport, add_failures, validate
from recsys.data.tables import Source, find_files, scan_file
from recsys.errors import DataError, InvalidArgumentError
from recsys.schema import (
    IMPRESSION,
    ONE_WAY_KINDS,
    EventSchema,
    ItemSchema,
    PhotoSchema,
    RelationSchema,
    is_first_of_its_id,
)

T = TypeVar("T")
_ITEM_RULES = {"item_id_is_unique": is_first_of_its_id(pl.col("item_id"))}


def scan_table(
    source: Source | Frame, schema: type[dy.Schema], *, table: str = "", by_line: bool = False
) -> pl.LazyFrame:
    """Return the coerced rows of a table; its files may differ in columns and types.

    Args:
        source: A path, a glob, a list of them, or a DataFrame.
        schema: Schema of ``recsys.schema``.
        table: Name of a DataFrame in error messages.
        by_line: As for ``recsys.data.tables.scan_file``.

    Raises:
        DataError: If a file is missing or damaged.
        SchemaError: If a file lacks a required column, or has a type that cannot be read.
    """
    if isinstance(source, Frame):
        return coerce(to_polars(source, table=table).lazy(), schema, table=f"table {table}")
    names = schema.column_names()
    return pl.concat(
        coerce(scan_file(path, names, by_line=by_line), schema, table=path)
        for path in find_files(source)
    )


def read_table(
    source: Source | Frame, schema: type[dy.Schema], table: str, read: Callable[[pl.LazyFrame], T]
) -> T:
    """Return what ``read`` makes of the coerced rows of a table.

    Text files that polars cannot read are read by line, which reads some of them, and names the
    line that is wrong in the others.

    Args:
        source: A path, a glob, a list of them, or a DataFrame.
        schema: Schema of ``recsys.schema``.
        table: Name of a DataFrame in error messages.
        read: Function that reads the rows, inside ``recsys.data.tables.reading``.

    Raises:
        DataError: As for ``scan_table``, or by ``read``.
        SchemaError: As for ``scan_table``.
    """
    try:
        return read(scan_table(source, schema, table=table))
    except DataError as error:
        if isinstance(source, Frame) or not isinstance(error.__cause__, pl.exceptions.PolarsError):
            raise
        return read(scan_table(source, schema, by_line=True))


def _validate(
    source: Source | Frame, schema: type[dy.Schema], table: str, rules: Mapping[str, pl.Expr]
) -> Loaded:
    return read_table(
        source, schema, table, lambda rows: validate(rows, schema, table=table, rules=rules)
    )


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
    loaded = _validate(source, ItemSchema, "items", _ITEM_RULES)
    loaded = _with_pictures(loaded, images_root, check_image, progress)
    return loaded._replace(frame=loaded.frame.drop(ROW))


def check_items(
    table: pl.LazyFrame,
    images_root: Path | None,
    *,
    rules: Mapping[str, pl.Expr],
    check_image: CheckImage | None = None,
) -> Loaded:
    """Return the valid rows of scanned items, numbered by ROW; pictures as in ``load_items``.

    Args:
        table: Result of ``scan_table``, or some rows of it.
        images_root: Folder that picture paths are relative to; None if no picture can be found.
        rules: Rules over the rows, by name; ``item_id_is_unique`` replaces the usual one.
        check_image: As in ``load_items``.

    Raises:
        DataError: If the table cannot be read or is empty, or if pictures are named and
            ``images_root`` is not a folder.
    """
    loaded = validate(table, ItemSchema, table="items", rules={**_ITEM_RULES, **rules})
    return _with_pictures(loaded, images_root, check_image, None)


def _with_pictures(
    loaded: Loaded, root: Path | None, check_image: CheckImage | None, progress: Progress | None
) -> Loaded:
    """Return items with those pictures that are good, and the report with the others."""
    checked = _check_pictures(loaded, root, check_image, progress)
    report = replace(loaded.report, failures=failures_with(loaded, checked.broken, kept=True))
    image = pl.when(~pl.col("image").is_in(list(checked.broken))).then("image")
    return Loaded(loaded.frame.with_columns(image=image.replace(checked.renamed)), report)


def default_images_root(source: Source) -> Path:
    """Return the folder of a table's first file."""
    return find_files(source)[0].parent


def load_events(source: Source | Frame, item_ids: pl.Series, *, now: datetime) -> Loaded:
    """Return the valid events in the order of the table, without impressions.

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
    loaded = _validate(source, EventSchema, "events", rules)
    events = loaded.frame.filter(pl.col("kind") != IMPRESSION).drop(ROW)
    report = replace(loaded.report, n_valid=len(events))
    return Loaded(events, _with_spellings(report, item_ids))


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
    loaded = _validate(source, PhotoSchema, "photos", rules)
    checked = _check_pictures(loaded, images_root, check_image, progress)
    photos = loaded.frame.filter(~pl.col("image").is_in(list(checked.broken))).drop(ROW)
    photos = photos.with_columns(pl.col("image").replace(checked.renamed))
    failures = failures_with(loaded, checked.broken, kept=False)
    report = replace(loaded.report, n_valid=len(photos), failures=failures)
    return Loaded(photos, _with_spellings(report, item_ids))


def load_relations(source: Source | Frame, item_ids: pl.Series) -> Loaded:
    """Return the valid relations in the order of the table; of equal ones the first counts.

    Except for ``ONE_WAY_KINDS``, a relation is equal to that of right with left.

    Args:
        source: A path, a glob, a list of them, or a DataFrame.
        item_ids: Ids of the valid items; relations of other items are quarantined.

    Raises:
        DataError: If the table cannot be read or is empty.
        SchemaError: If a column is missing or has a type that cannot be read.
    """
    left, right, known = pl.col("left"), pl.col("right"), item_ids.implode()
    rules = {
        "left|known": left.is_in(known),
        "right|known": right.is_in(known),
        "right|another": left != right,
    }
    loaded = _validate(source, RelationSchema, "relations", rules)
    ordered = pl.col("kind").is_in(ONE_WAY_KINDS) | (left < right)
    ends = [
        pl.when(ordered).then(one).otherwise(other) for one, other in ((left, right), (right, left))
    ]
    is_new = pl.struct("kind", first=ends[0], last=ends[1]).is_first_distinct()
    repeated = loaded.frame.filter(~is_new).with_columns(
        rule=pl.lit("relation_is_unique"), got=pl.concat_str("left", "kind", "right", separator=" ")
    )
    relations = loaded.frame.filter(is_new).drop(ROW)
    failures = add_failures(loaded.report.failures, repeated, kept=False)
    report = replace(loaded.report, n_valid=len(relations), failures=failures)
    return Loaded(relations, _with_spellings(report, item_ids))


def _with_spellings(report: TableReport, item_ids: pl.Series) -> TableReport:
    """Return a report that calls unknown items misspelled if another spelling of them is known.

    Spreadsheets make 123 of the id 00123, and programs that read numbers make 17850.0 of 17850.
    """
    is_unknown = pl.col("rule").str.ends_with("|known")
    if not report.failures.select(is_unknown.any()).item():
        return report
    known = pl.DataFrame({"got": item_ids}).select(_plain(pl.col("got"))).to_series().unique()
    is_misspelled = is_unknown & _plain(pl.col("got")).is_in(known.implode())
    spelled = pl.col("rule").str.replace("|known", "|spelled", literal=True)
    rule = pl.when(is_misspelled).then(spelled).otherwise("rule")
    return replace(report, failures=report.failures.with_columns(rule=rule))


def _plain(item_id: pl.Expr) -> pl.Expr:
    return item_id.str.to_lowercase().str.strip_suffix(".0").str.strip_chars_start("0")


def _check_pictures(
    loaded: Loaded, root: Path | None, check_image: CheckImage | None, progress: Progress | None
) -> CheckedPictures:
    names = loaded.frame["image"].drop_nulls().unique(maintain_order=True)
    return check_pictures(names, root, check_image=check_image, progress=progress)
