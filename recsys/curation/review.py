"""Photos that a person should look at: a table of them goes out, and comes back with labels."""

import difflib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from recsys.answers import Identification
from recsys.data.files import whole_file
from recsys.data.loading import default_images_root, scan_table
from recsys.data.pictures import broken_pictures
from recsys.data.tables import find_files, reading, scan_file
from recsys.errors import DataError, InvalidArgumentError
from recsys.identifier import ProductIdentifier
from recsys.schema import PhotoSchema
from vision.labelling.readable import Readable

N_CANDIDATES = 3
SUFFIXES = (".parquet", ".csv")  # of tables that are written


class Pool(NamedTuple):
    """Photos without a label, by their names below the images root."""

    names: list[str]
    images_root: Path


class Added(NamedTuple):
    """What labels did to a photos table."""

    n_new: int  # photos that were not in it
    n_labelled: int  # photos that were, and have another item now
    n_empty: int  # rows of the review that nobody filled


def find_pool(photos: Path, *, images_root: Path | None = None) -> Pool:
    """Return the files of a folder, or the photos of a table that name no item.

    Args:
        photos: A folder, or a table of ``PhotoSchema``.
        images_root: What names are relative to; the folder itself, or the table's, if None.

    Raises:
        DataError: If there is no such table or folder, it has no photos without an item, or the
            folder is not inside ``images_root``.
        SchemaError: If columns or types are not what the schema wants.
    """
    if photos.is_dir():
        root = images_root or photos
        if not photos.resolve().is_relative_to(root.resolve()):
            raise DataError(f"photos must be inside images_root {root}, got {photos}")
        files = sorted(path for path in photos.resolve().rglob("*") if path.is_file())
        names = [str(path.relative_to(root.resolve())) for path in files]
    else:
        root = images_root or default_images_root(photos)
        with reading(photos):
            table = scan_table(photos, PhotoSchema).collect()
        names = table.filter(pl.col("item_id").is_null())["image"].drop_nulls().to_list()
    if not names:
        raise DataError(f"photos must hold one or more without an item, got none in {photos}")
    return Pool(names, root)


def ask(identifier: ProductIdentifier, pool: Pool) -> pl.DataFrame:
    """Return the photos on which no product can be named, as ``most_useful`` does.

    Files that are no pictures are left out, with a warning in the log.

    Args:
        identifier: Trained on what is labelled so far.
        pool: From ``find_pool``.
    """
    tower = identifier.recommender.bundle.vision
    pictures = Readable([Path(name) for name in pool.names], pool.images_root, tower.preprocess)
    answers = identifier.identify_many(pictures, k=N_CANDIDATES)
    return most_useful([pool.names[row] for row in pictures.rows], answers)


def most_useful(names: Sequence[str], answers: Sequence[Identification]) -> pl.DataFrame:
    """Return the photos on which no product was named, the most useful to label first.

    Most useful is the smallest margin between the two most probable answers, of which "not in the
    catalogue" is one (margin sampling; Scheffer et al., 2001,
    https://doi.org/10.1007/3-540-44816-0_31).

    Returns:
        A flat table, so that a spreadsheet can hold it: ``image``, an empty ``item_id`` to fill,
        ``verdict``, ``probability`` of being in the catalogue, ``margin``, and ``candidate_1``,
        ``candidate_1_probability``, ... to ``N_CANDIDATES``.
    """
    rows = [
        _row(name, answer)
        for name, answer in zip(names, answers, strict=True)
        if answer.verdict != "product"
    ]
    return pl.DataFrame(rows, schema=_columns()).sort("margin", maintain_order=True)


def write_table(table: pl.DataFrame, out: Path) -> None:
    """Write a table as its name's suffix says; a reader sees the old file or the new one.

    Raises:
        InvalidArgumentError: If the suffix is not one of ``SUFFIXES``.
    """
    if out.suffix not in SUFFIXES:
        raise InvalidArgumentError(f"out must end in {' or '.join(SUFFIXES)}, got {out.name!r}")
    write = table.write_parquet if out.suffix == ".parquet" else table.write_csv
    with whole_file(out) as scratch:
        write(scratch)


def learn(
    labelled: Path, photos: Path, item_ids: Set[str], *, images_root: Path | None = None
) -> Added:
    """Put the labels of a review into a photos table, where the next training reads them.

    A photo that is in the table gets its item and keeps its split; a new one is for training.

    Args:
        labelled: A table with ``image`` and ``item_id``; rows without an item are left for later.
        photos: The photos table, made if it is not there.
        item_ids: Of the catalogue.
        images_root: What ``image`` is relative to; the folder of ``photos`` if None.

    Raises:
        DataError: If a table cannot be read, an item is not in the catalogue, a photo has two
            items, or its picture is not there; names each row.
    """
    table = read_labels(labelled)
    labels = table.drop_nulls("item_id").unique(maintain_order=True)
    root = images_root if images_root is not None else photos.parent
    problems = [
        *_unknown_items(labels, item_ids),
        *_repeated(labels),
        *(
            f"image {name!r} breaks the rule {rule} in {root}"
            for name, rule in broken_pictures(
                labels["image"].unique(maintain_order=True), root, check_image=None, progress=None
            ).items()
        ),
    ]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems[:20])
        raise DataError(f"table {labelled} has {len(problems)} problem(s):\n{listed}")
    there = _stored(photos)
    merged = there.join(labels.rename({"item_id": "label"}), on="image", how="left")
    changed = merged.filter(pl.col("label") != pl.col("item_id").fill_null(""))
    new = labels.join(there, on="image", how="anti")
    kept = merged.with_columns(item_id=pl.coalesce("label", "item_id")).drop("label")
    write_table(pl.concat([kept, new], how="diagonal"), photos)
    return Added(len(new), len(changed), int(table["item_id"].null_count()))


def read_labels(labelled: Path) -> pl.DataFrame:
    """Return ``image`` and ``item_id`` of a review as text; an item that is blank is null.

    Raises:
        DataError: If the table cannot be read, lacks a column, or has a row without an image.
    """
    (path,) = find_files(labelled)
    with reading(path):
        table = scan_file(path).collect()
    missing = [name for name in ("image", "item_id") if name not in table.columns]
    if missing:
        raise DataError(
            f"table {path} must have the columns image and item_id, got {table.columns}; "
            "fill in the table that `recsys review ask` wrote"
        )
    text = table.select(pl.col("image", "item_id").cast(pl.String).str.strip_chars())
    if text["image"].fill_null("").eq("").any():
        raise DataError(f"table {path} must name an image in every row, got one without")
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
    for image, item_id in labels.filter(~pl.col("item_id").is_in(known)).iter_rows():
        near = difflib.get_close_matches(item_id, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problems.append(f"item_id of {image!r} must be in the catalogue, got {item_id!r}{hint}")
    return problems


def _repeated(labels: pl.DataFrame) -> Sequence[str]:
    twice = labels.group_by("image", maintain_order=True).agg("item_id")
    return [
        f"image {image!r} must have one item_id, got {item_ids}"
        for image, item_ids in twice.filter(pl.col("item_id").list.len() > 1).iter_rows()
    ]


def _stored(photos: Path) -> pl.DataFrame:
    """Return a photos table as it is stored, with its ``item_id`` as text; empty if not there."""
    if not photos.exists():
        return pl.DataFrame(schema={"image": pl.String, "item_id": pl.String})
    with reading(photos):
        table = scan_file(photos).collect()
        scan_table(photos, PhotoSchema)  # raises for what is not a photos table
    if "item_id" not in table.columns:
        table = table.with_columns(item_id=pl.lit(None, pl.String))
    return table.with_columns(pl.col("image", "item_id").cast(pl.String))
