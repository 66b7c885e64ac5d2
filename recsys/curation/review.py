"""Ask people about uncertain photos: write a table of them, and read it back with labels."""

import difflib
import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from recsys.answers import Identification
from recsys.data.files import whole_file
from recsys.data.loading import default_images_root, scan_table
from recsys.data.pictures import check_pictures
from recsys.data.spreadsheets import mark_formulas, unmark_formulas
from recsys.data.tables import find_files, reading, scan_file
from recsys.errors import DataError, InvalidArgumentError
from recsys.identifier import ProductIdentifier
from recsys.schema import PhotoSchema
from vision.labelling.readable import Readable

logger = logging.getLogger(__name__)

N_CANDIDATES = 3
SUFFIXES = (".parquet", ".csv")  # formats that write_table knows


class Pool(NamedTuple):
    """Photos without a label, as paths relative to the images root."""

    names: list[str]
    images_root: Path


class LabelsAdded(NamedTuple):
    """Changes to a photos table."""

    n_new: int  # photos that were added
    n_labelled: int  # photos of the table whose item changed
    n_empty: int  # rows of the review without a label


def find_pool(photos: Path, *, images_root: Path | None = None) -> Pool:
    """Return the files of a folder, or the photos of a table that have no item.

    Files whose name is not UTF-8 are left out, with a warning in the log: no table can hold it.

    Args:
        photos: Folder, or table of ``PhotoSchema``.
        images_root: Folder that names are relative to. If None, it is the folder itself or that of
            the table.

    Raises:
        DataError: If the table or folder is missing, every photo has an item, or the folder is not
            inside ``images_root``.
        SchemaError: If the table has other columns or types than the schema.
    """
    if photos.is_dir():
        root = images_root or photos
        if not photos.resolve().is_relative_to(root.resolve()):
            raise DataError(f"photos must be inside images_root {root}, got {photos}")
        files = sorted(path for path in photos.resolve().rglob("*") if path.is_file())
        names = [str(path.relative_to(root.resolve())) for path in files]
        names = [name for name in names if _is_utf8(name)]
    else:
        root = images_root or default_images_root(photos)
        with reading(photos):
            table = scan_table(photos, PhotoSchema).collect()
        images = table.filter(pl.col("item_id").is_null())["image"].drop_nulls()
        names = _as_on_disk(images, root).to_list()
    if not names:
        raise DataError(f"photos must have one or more without an item, found 0 in {photos}")
    return Pool(names, root)


def _is_utf8(name: str) -> bool:
    """Return whether a table can hold a file's name; log a warning if not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        logger.warning("%r is left out: its name is not UTF-8; rename it", name)
        return False
    return True


def ask(identifier: ProductIdentifier, pool: Pool) -> pl.DataFrame:
    """Return the photos whose product is uncertain, in the order of ``most_useful``.

    Files that are not readable images are left out, with a warning in the log.

    Args:
        identifier: Identifier that was trained on the photos labelled so far.
        pool: Photos that ``find_pool`` returned.
    """
    tower = identifier.recommender.bundle.vision
    pictures = Readable([Path(name) for name in pool.names], pool.images_root, tower.preprocess)
    answers = identifier.identify_many(pictures, k=N_CANDIDATES)
    return most_useful([pool.names[row] for row in pictures.rows], answers)


def most_useful(names: Sequence[str], answers: Sequence[Identification]) -> pl.DataFrame:
    """Return the photos whose product is uncertain, the most useful to label first.

    This is margin sampling (Scheffer et al., 2001, https://doi.org/10.1007/3-540-44816-0_31). The
    photo with the smallest margin between its two most probable answers comes first, where "not in
    the catalogue" is one of the answers.

    Args:
        names: Name of each photo.
        answers: Identification of each photo.

    Returns:
        A flat table that fits a spreadsheet: ``image``, an empty ``item_id`` to fill in,
        ``verdict``, ``probability`` of being in the catalogue, ``margin``, and the columns
        ``candidate_1``, ``candidate_1_probability`` and so on, up to ``N_CANDIDATES``.
    """
    rows = [
        _row(name, answer)
        for name, answer in zip(names, answers, strict=True)
        if answer.verdict != "product"
    ]
    return pl.DataFrame(rows, schema=_columns()).sort("margin", maintain_order=True)


def write_review(table: pl.DataFrame, out: Path) -> None:
    """Write the table of ``ask`` for a person to fill in, in the format of the file's suffix.

    In CSV, texts that a spreadsheet would calculate are marked; ``read_labels`` reads them as they
    were.

    Raises:
        InvalidArgumentError: If the suffix is not in ``SUFFIXES``.
    """
    write_table(mark_formulas(table) if out.suffix == ".csv" else table, out)


def refuse_labelled(out: Path) -> None:
    """Raise if a file that will be replaced has labels, which nobody could write again.

    Raises:
        InvalidArgumentError: If a row of the file has an ``item_id``.
        DataError: If the file is a damaged table.
    """
    if not out.exists():
        return
    with reading(out):
        table = scan_file(out)
        is_review = {"image", "item_id"} <= set(table.collect_schema().names())
    labels = read_labels(out)["item_id"].count() if is_review else 0
    if labels:
        raise InvalidArgumentError(
            f"out must be a new file, but {out} has {labels} labels; run `recsys review learn` on "
            "it and remove it, or choose another file"
        )


def write_table(table: pl.DataFrame, out: Path) -> None:
    """Write a table in the format of the file's suffix; a reader sees the old file or the new one.

    Raises:
        InvalidArgumentError: If the suffix is not in ``SUFFIXES``.
    """
    if out.suffix not in SUFFIXES:
        raise InvalidArgumentError(f"out must end in {' or '.join(SUFFIXES)}, got {out.name!r}")
    write = table.write_parquet if out.suffix == ".parquet" else table.write_csv
    with whole_file(out) as scratch:
        write(scratch)


def learn(
    labelled: Path, photos: Path, item_ids: Set[str], *, images_root: Path | None = None
) -> LabelsAdded:
    """Add the labels of a review to a photos table, which the next training reads.

    A photo of the table gets the new item and keeps its split. A new photo is used for training.

    Args:
        labelled: Table with the columns ``image`` and ``item_id``; rows without an item are
            skipped.
        photos: Photos table, created if missing.
        item_ids: Item ids of the catalogue.
        images_root: Folder that ``image`` is relative to; the folder of ``photos`` if None.

    Raises:
        DataError: If a table cannot be read, an item is not in the catalogue, or a photo has two
            items or a missing file; the message lists each problem.
    """
    table = read_labels(labelled)
    labels = table.drop_nulls("item_id").unique(maintain_order=True)
    root = images_root if images_root is not None else photos.parent
    names = labels["image"].unique(maintain_order=True)
    checked = check_pictures(names, root, check_image=None, progress=None)
    # One photo may be spelled in two ways, here and in the photos table.
    labels = labels.with_columns(file=pl.col("image").replace(checked.renamed))
    problems = [
        *_unknown_items(labels, item_ids),
        *_repeated(labels),
        *(
            f"image {name!r} breaks the rule {rule} in {root}" + (f"; {reason}" if reason else "")
            for name, (rule, reason) in checked.broken.items()
        ),
    ]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:20])
        raise DataError(f"table {labelled} has {len(problems)} problem(s):\n{listed}")
    labels = labels.select("item_id", "file").unique(maintain_order=True)
    there = _stored(photos)
    there = there.with_columns(_as_on_disk(there["image"], root).alias("file"))
    merged = there.join(labels.rename({"item_id": "label"}), on="file", how="left")
    changed = merged.filter(pl.col("label") != pl.col("item_id").fill_null(""))
    new = labels.join(there, on="file", how="anti").rename({"file": "image"})
    kept = merged.with_columns(item_id=pl.coalesce("label", "item_id")).drop("label", "file")
    write_table(pl.concat([kept, new], how="diagonal"), photos)
    return LabelsAdded(len(new), len(changed), int(table["item_id"].null_count()))


def read_labels(labelled: Path) -> pl.DataFrame:
    """Return ``image`` and ``item_id`` of a review as text; a blank item becomes null.

    Raises:
        DataError: If the table cannot be read, lacks a column, or has a row without an image.
    """
    path, *others = find_files(labelled)
    if others:
        raise DataError(f"the labels must be one table, {labelled} matches {1 + len(others)}")
    with reading(path):
        table = scan_file(path).collect()
    missing = [name for name in ("image", "item_id") if name not in table.columns]
    if missing:
        raise DataError(
            f"table {path} must have the columns image and item_id, got {table.columns}; "
            "fill in the table that `recsys review ask` wrote"
        )
    text = table.select(pl.col("image", "item_id").cast(pl.String).str.strip_chars())
    text = text.filter(~pl.all_horizontal(pl.all().fill_null("") == ""))  # spreadsheets end so
    if path.name.lower().endswith((".csv", ".csv.gz")):
        text = text.select(unmark_formulas(pl.all()))
    if text["image"].fill_null("").eq("").any():
        raise DataError(f"table {path} must name an image in every row, got a row without one")
    return text.with_columns(item_id=pl.when(pl.col("item_id") != "").then("item_id"))


def _row(name: str, answer: Identification) -> Mapping[str, Any]:
    outcomes = sorted(
        [*(one.score for one in answer.candidates), 1 - answer.probability], reverse=True
    )
    row: dict[str, Any] = {
        "image": name,
        "item_id": None,
        "verdict": answer.verdict,
        "probability": answer.probability,
        "margin": outcomes[0] - outcomes[1],
    }
    for place, one in enumerate(answer.candidates, start=1):
        row |= {f"candidate_{place}": one.item_id, f"candidate_{place}_probability": one.score}
    return row


def _columns() -> dict[str, pl.DataType]:
    columns: dict[str, pl.DataType] = {
        name: pl.String() for name in ("image", "item_id", "verdict")
    }
    columns |= {name: pl.Float64() for name in ("probability", "margin")}
    for place in range(1, N_CANDIDATES + 1):
        columns[f"candidate_{place}"] = pl.String()
        columns[f"candidate_{place}_probability"] = pl.Float64()
    return columns


def _unknown_items(labels: pl.DataFrame, item_ids: Set[str]) -> list[str]:
    known = sorted(item_ids)
    problems = []
    unknown = labels.filter(~pl.col("item_id").is_in(known))
    for image, item_id in unknown.select("image", "item_id").iter_rows():
        near = difflib.get_close_matches(item_id, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problems.append(f"item_id of {image!r} must be in the catalogue, got {item_id!r}{hint}")
    return problems


def _repeated(labels: pl.DataFrame) -> Sequence[str]:
    twice = labels.group_by("file", maintain_order=True).agg("item_id")
    return [
        f"image {image!r} must have one item_id, got {item_ids}"
        for image, item_ids in twice.filter(pl.col("item_id").list.len() > 1).iter_rows()
    ]


def _as_on_disk(images: pl.Series, root: Path) -> pl.Series:
    """Return the names of photos as their files are written; a name without a file stays."""
    names = images.drop_nulls().unique()
    return images.replace(check_pictures(names, root, check_image=None, progress=None).renamed)


def _stored(photos: Path) -> pl.DataFrame:
    """Return a photos table with ``item_id`` as text; an empty one if the file is missing."""
    if not photos.exists():
        return pl.DataFrame(schema={"image": pl.String, "item_id": pl.String})
    with reading(photos):
        table = scan_file(photos, by_line=True).collect()  # with all columns of every line
        scan_table(photos, PhotoSchema)  # raises if it is not a photos table
    if "item_id" not in table.columns:
        table = table.with_columns(item_id=pl.lit(None, pl.String))
    return table.with_columns(pl.col("image", "item_id").cast(pl.String))
