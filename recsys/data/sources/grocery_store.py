"""Grocery Store: photos of 81 products in shops, and for each product a picture and a text."""

from pathlib import Path

import polars as pl

from recsys.data.progress import Progress
from recsys.data.sources.archive import Original, collect_pictures, unpacked
from recsys.data.sources.staging import Imported, require_columns, staging, write_tables
from recsys.data.tables import reading
from recsys.errors import DataError
from recsys.schema import SPLITS

_CLASSES = "classes.csv"
_COLUMNS = {
    "name": "Class Name (str)",
    "code": "Class ID (int)",
    "coarse": "Coarse Class Name (str)",
    "image": "Iconic Image Path (str)",
    "text": "Product Description Path (str)",
}


def import_grocery_store(src: Path, out: Path, *, progress: Progress | None = None) -> Imported:
    """Write the data set of Klasson et al. (2019, https://arxiv.org/abs/1901.00711) as tables.

    One item per fine class: its name is the ``item_id``, its iconic picture the image, and its
    category [Fruit | Packages | Vegetables, coarse class, fine class]. The photos keep the
    published ``train``, ``val`` and ``test``.

    Args:
        src: The published folder, or a tar archive of it.
        out: Folder to make; it gets ``items.parquet``, ``photos.parquet`` and the pictures.
        progress: Function called while files are unpacked and copied.

    Raises:
        DataError: If ``src`` is not the published layout.
        SchemaError: If a published table lacks a column.
        InvalidArgumentError: If ``out`` is in use.
    """
    with (
        staging(out) as scratch,
        unpacked(src, _CLASSES, scratch=scratch, progress=progress) as original,
    ):
        classes = _read_classes(original)
        photos = _read_photos(original, classes)
        items = classes.select("item_id", "title", "description", "image", "category")
        names = [*items["image"], *photos["image"]]
        missing = collect_pictures(original, names, scratch, progress=progress)
        if missing:
            raise DataError(
                f"{src} must hold every picture its lists name, {len(missing)} are missing, such "
                f"as {min(missing)}; download it again"
            )
        return write_tables(scratch, out, items=items, photos=photos)


def _read_classes(original: Original) -> pl.DataFrame:
    """Return the items and their class ``code``."""
    path = original.folder / _CLASSES
    with reading(path):
        table = pl.read_csv(path, infer_schema=False, glob=False)
    require_columns(table, _COLUMNS.values(), src=path)
    table = table.select(pl.col(stored).alias(name) for name, stored in _COLUMNS.items())
    image = pl.col("image").str.strip_prefix("/")
    return table.select(
        "code",
        item_id="name",
        title=_words("name"),
        description=pl.Series([_read_text(original, path) for path in table["text"]]),
        image=image,
        # iconic-images-and-descriptions/Fruit/Apple/...
        category=pl.concat_list(image.str.split("/").list.get(1), _words("coarse"), _words("name")),
    )


def _words(column: str) -> pl.Expr:
    return pl.col(column).str.replace_all("-", " ", literal=True)


def _read_text(original: Original, path: str) -> str:
    file = original.find(path.removeprefix("/"))
    if file is None:
        raise DataError(f"{original.folder} must hold {path!r}, as {_CLASSES} says")
    with reading(file):
        return " ".join(file.read_text("utf-8").split())


def _read_photos(original: Original, classes: pl.DataFrame) -> pl.DataFrame:
    """Return the photos of all splits; a line is ``path, fine class, coarse class``."""
    lists = []
    for split in SPLITS:
        path = original.folder / f"{split}.txt"
        with reading(path):
            lines = [line.split(", ") for line in path.read_text("utf-8").splitlines()]
        if not all(len(line) == 3 for line in lines):
            raise DataError(f"every line of {path} must be 'path, class, coarse class'")
        columns = {"image": [line[0] for line in lines], "code": [line[1] for line in lines]}
        lists.append(pl.DataFrame(columns).with_columns(split=pl.lit(split)))
    photos = pl.concat(lists).join(
        classes.select("code", "item_id", "category"),
        on="code",
        how="left",
        maintain_order="left",
    )
    return photos.select("image", "item_id", "category", "split")
