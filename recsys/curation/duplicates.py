"""Find items that are the same product, by title, picture file or embedding."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jinja2 import Environment, StrictUndefined

from recsys.curation.components import first_connected, members, near_components
from recsys.data.arrays import Floats, Ints
from recsys.data.files import whole_file
from recsys.errors import FileAccessError, InvalidArgumentError
from text.tokens.normalize import normalize
from vision.printable import shown_on_page

THRESHOLD = 0.99

FORMATS = (".parquet", ".json", ".html")
SCHEMA = {"group": pl.Int64, "item_id": pl.String, "reason": pl.String, "similarity": pl.Float32}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Duplicates</title>
<style>body {font: 14px sans-serif; margin: 2em} td, th {padding: 2px 12px; text-align: left}
tbody {border-top: 1px solid #bbb}</style>
<h1>{{ groups | length }} groups of items that seem to be one product</h1>
<table style="border-collapse: collapse">
<thead><tr><th>group<th>item<th>title<th>linked by<th>cosine to the nearest item</tr></thead>
{% for group in groups %}<tbody>
{% for row in group.iter_rows(named=True) %}<tr><td>{{ row.group }}<td>{{ row.item_id }}\
<td>{{ (row.title or "") | truncate(200) }}<td>{{ row.reason }}\
<td>{{ "" if row.similarity is none else "%.3f" | format(row.similarity) }}</tr>
{% endfor %}</tbody>
{% endfor %}</table>
</html>"""


def find_duplicates(
    items: pl.DataFrame,
    embeddings: Floats,
    *,
    images_root: Path | None = None,
    threshold: float = THRESHOLD,
) -> pl.DataFrame:
    """Return groups of items that seem to be one product, the largest group first.

    Two items are linked if their titles are equal apart from case and spelling, if their pictures
    are equal, or if their embeddings have a cosine of at least the threshold. A group is everything
    that links connect, so two of its items may be less alike than the threshold.

    Args:
        items: Table of ``ItemSchema`` (N rows).
        embeddings: Embeddings of the items (N, D), unit length or zero.
        images_root: Folder of the pictures, to compare their bytes; None compares their names.
        threshold: Lowest cosine of two linked items.

    Returns:
        A table with the columns ``group`` (from 1), ``item_id``, ``reason`` and ``similarity``. The
        reason lists what links the item to another one: "title", "picture", "embedding". The
        similarity is the cosine to the nearest item of the group, null without an embedding.

    Raises:
        InvalidArgumentError: If the numbers of items and embeddings differ, or the threshold is
            not above 0 and at most 1.
        FileAccessError: If every picture is missing under the root.
    """
    if len(items) != len(embeddings):
        raise InvalidArgumentError(
            f"embeddings must have one row per item, {len(items)}, got {len(embeddings)}"
        )
    if not 0 < threshold <= 1:
        raise InvalidArgumentError(f"threshold must be above 0 and at most 1, got {threshold}")
    embeddings = np.asarray(embeddings, dtype=np.float32)
    firsts = {
        "title": _first_of_same([_title_key(title) for title in items["title"]]),
        "picture": _first_of_same(_picture_keys(items["image"].to_list(), images_root)),
        "embedding": _first_near(embeddings, threshold),
    }
    links = [(np.arange(len(items)), first) for first in firsts.values()]
    groups = sorted(members(first_connected(len(items), links)), key=len, reverse=True)
    linked = {name: np.bincount(first)[first] > 1 for name, first in firsts.items()}
    rows = [row for group in groups for row in group.tolist()]
    return pl.DataFrame(
        {
            "group": [n for n, group in enumerate(groups, start=1) for _ in group],
            "item_id": items["item_id"].gather(rows),
            "reason": [", ".join(name for name in linked if linked[name][row]) for row in rows],
            "similarity": [
                cosine for group in groups for cosine in _nearest_cosines(embeddings[group])
            ],
        },
        schema=SCHEMA,
    )


def _title_key(title: str | None) -> str | None:
    return normalize(title or "").casefold() or None


def _picture_keys(images: Sequence[str | None], root: Path | None) -> list[str | None]:
    """Return a key that equal pictures share; None where the picture or its file is missing."""
    if root is None or not any(images):
        return [image or None for image in images]
    files = {image: root / image for image in images if image}
    digests = {
        image: hashlib.sha256(file.read_bytes()).hexdigest()
        for image, file in files.items()
        if file.is_file()
    }
    if not digests:
        raise FileAccessError(
            f"images_root {root} must have the items' pictures, got none of {len(files)}, "
            f"such as {next(iter(files))}"
        )
    return [digests.get(image or "") for image in images]


def _first_of_same(keys: Sequence[str | bytes | None]) -> Ints:
    """Return the first row with the key of each row (N,), or the row itself without a key."""
    first: dict[str | bytes, int] = {}
    return np.array(
        [row if key is None else first.setdefault(key, row) for row, key in enumerate(keys)],
        dtype=np.int64,
    )


def _first_near(embeddings: Floats, threshold: float) -> Ints:
    """Return the first row that near pairs connect to each row (N,).

    Equal rows are compared once: the pairs of a thousand equal rows would be half a million.
    """
    has_any = np.any(embeddings, axis=1)
    equal = _first_of_same(
        [row.tobytes() if there else None for row, there in zip(embeddings, has_any, strict=True)]
    )
    rows = np.flatnonzero(has_any & (equal == np.arange(len(equal))))
    first = np.arange(len(equal))
    first[rows] = rows[near_components(embeddings[rows], threshold)]
    return first[equal]


def _nearest_cosines(vectors: Floats, *, rows_at_once: int = 256) -> list[float | None]:
    """Return the cosine of each vector to the nearest other one (G,); None for zero vectors."""
    rows = np.flatnonzero(vectors.any(axis=1))
    nearest: list[float | None] = [None] * len(vectors)
    for start in range(0, len(rows), rows_at_once) if len(rows) > 1 else ():
        block = rows[start : start + rows_at_once]
        cosines = vectors[block] @ vectors[rows].T
        cosines[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        for row, cosine in zip(block.tolist(), cosines.max(axis=1).tolist(), strict=True):
            nearest[row] = min(cosine, 1.0)
    return nearest


def check_format(path: Path) -> None:
    """Check that the suffix of a file names a format that ``write_report`` writes.

    Raises:
        InvalidArgumentError: If the suffix is not one of ``FORMATS``.
    """
    if path.suffix not in FORMATS:
        raise InvalidArgumentError(f"out must end in {', '.join(FORMATS)}, got {path}")


def write_report(duplicates: pl.DataFrame, titles: pl.DataFrame, path: Path) -> None:
    """Write duplicates in the format of the file's suffix: .parquet, .json or .html.

    Args:
        duplicates: Table that ``find_duplicates`` returned.
        titles: Table with the columns ``item_id`` and ``title``, for the page.
        path: File to write.

    Raises:
        InvalidArgumentError: If the suffix is not one of ``FORMATS``.
    """
    check_format(path)
    with whole_file(path) as scratch:
        if path.suffix == ".parquet":
            duplicates.write_parquet(scratch)
        elif path.suffix == ".json":
            scratch.write_text(duplicates.write_json() + "\n", encoding="utf-8")
        else:
            rows = duplicates.join(titles, on="item_id", how="left", maintain_order="left")
            environment = Environment(
                autoescape=True, finalize=shown_on_page, undefined=StrictUndefined
            )
            page = environment.from_string(_PAGE).render(groups=rows.partition_by("group"))
            scratch.write_text(page + "\n", encoding="utf-8")
