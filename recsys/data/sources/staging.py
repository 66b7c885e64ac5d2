"""Shared by the importers: write canonical tables, the whole result or nothing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys.data.coercion import coerce
from recsys.data.files import whole_folder
from recsys.errors import InvalidArgumentError, SchemaError
from recsys.schema import EventSchema, ItemSchema, PhotoSchema

_SCHEMAS = {"items": ItemSchema, "events": EventSchema, "photos": PhotoSchema}


class Imported(NamedTuple):
    """The tables that an importer wrote; picture paths are relative to ``images_root``."""

    items: Path | None
    events: Path | None
    photos: Path | None
    images_root: Path | None
    n_items: int
    n_events: int
    n_photos: int
    notes: tuple[str, ...] = ()  # sentences for whoever imports: what was left out, and why


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; it becomes ``out`` on success, and is removed otherwise.

    Raises:
        InvalidArgumentError: If ``out`` exists and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidArgumentError(
            f"out must be new or an empty folder, got {out}; remove it or take another"
        )
    with whole_folder(out) as scratch:
        yield scratch


def write_tables(folder: Path, out: Path, **tables: pl.DataFrame) -> Imported:
    """Write ``items``, ``events`` and ``photos`` with the canonical columns; return their paths.

    Args:
        folder: Folder to write to, which ``staging`` yields.
        out: Name that ``folder`` will have.
        tables: Tables by name; optional columns may be missing.
    """
    paths = {}
    for name, table in tables.items():
        schema = _SCHEMAS[name]
        canonical = coerce(table.lazy(), schema, table=name).select(schema.column_names())
        canonical.collect().write_parquet(folder / f"{name}.parquet")
        paths[name] = out / f"{name}.parquet"
    pictured = any("image" in table.columns for table in tables.values())
    return Imported(
        items=paths.get("items"),
        events=paths.get("events"),
        photos=paths.get("photos"),
        images_root=out if pictured else None,
        n_items=len(tables.get("items", ())),
        n_events=len(tables.get("events", ())),
        n_photos=len(tables.get("photos", ())),
    )


def require_columns(table: pl.DataFrame, wanted: Iterable[str], *, src: Path) -> None:
    """Raise if a published table lacks a column.

    Raises:
        SchemaError: If a column is missing; lists the missing and the present columns.
    """
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise SchemaError(
            f"{src} must have the published columns, missing {missing}, got {table.columns}"
        )
