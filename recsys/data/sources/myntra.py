"""Myntra: fashion products with a small picture, a title and attributes."""

import csv
from pathlib import Path

import polars as pl

from recsys.data.progress import Progress
from recsys.data.sources.archive import Original, collect_pictures, unpacked
from recsys.data.sources.staging import Imported, require_columns, staging, write_tables
from recsys.data.tables import reading
from recsys.errors import DataError

_STYLES = "styles.csv"
_CATEGORY = ("master_category", "sub_category", "article_type")
_ATTRIBUTES = ("base_colour", "usage")
# Columns as Kaggle has them; there, the title is last and may have commas that nobody quoted.
_KAGGLE = {
    "id": "item_id",
    "productDisplayName": "title",
    "masterCategory": "master_category",
    "subCategory": "sub_category",
    "articleType": "article_type",
    "baseColour": "base_colour",
}


def import_myntra(src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write the products of "Fashion Product Images (Small)" as an items table.

    Pictures and titles repeat among the products, so split them by both.

    Args:
        src: The published folder, or a tar archive of it: ``styles.csv`` in the columns of this
            project's archive or of Kaggle's, and ``images/<id>.jpg``.
        out: Folder to make; it gets ``items.parquet`` and the pictures.
        progress: Function called while files are unpacked and copied.

    Raises:
        DataError: If ``src`` is not the published layout.
        SchemaError: If the published table lacks a column.
        InvalidArgumentError: If ``out`` is in use.
    """
    with (
        staging(out) as scratch,
        unpacked(src, _STYLES, scratch=scratch, progress=progress) as original,
    ):
        items = _read_items(original)
        missing = collect_pictures(original, items["image"], scratch, progress=progress)
        image = pl.when(~pl.col("image").is_in(list(missing))).then("image")
        return write_tables(scratch, out, items=items.with_columns(image=image))


def _read_items(original: Original) -> pl.DataFrame:
    path = original.folder / _STYLES
    styles = _read_styles(path)
    require_columns(styles, ("item_id", "title", *_CATEGORY, *_ATTRIBUTES), src=path)
    return styles.select(
        "item_id",
        "title",
        image=pl.format("images/{}.jpg", "item_id"),
        category=pl.concat_list(_CATEGORY),
        attributes=pl.struct(_ATTRIBUTES),
    )


def _read_styles(path: Path) -> pl.DataFrame:
    with reading(path), path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    names = [_KAGGLE.get(name, name) for name in lines[0]] if lines else []
    last = len(names) - 1
    rows = [[*line[:last], ",".join(line[last:])] for line in lines[1:]]
    if any(len(row) != len(names) for row in rows):
        raise DataError(f"every line of {path} must have {len(names)} fields; download it again")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
