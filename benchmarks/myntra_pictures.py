"""Myntra's labelled pictures, split so that no title or picture file is in two splits."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.published import imported
from vision.dataset import UNKNOWN, Samples

MIN_ITEMS = 50  # rarer article types are left out, as in the data set's reference figures
Split = Literal["train", "val", "test"]


class MyntraPictures(NamedTuple):
    """Samples of each split, with the same targets and classes."""

    train: Samples
    val: Samples
    test: Samples


def load_myntra() -> MyntraPictures:
    """Return the pictures; labels of rare classes are unknown."""
    folder = imported("myntra", "myntra-small.tar.gz")
    items = pl.read_parquet(folder / "items.parquet", glob=False).filter(
        pl.col("image").is_not_null()
    )
    images = [folder / image for image in items["image"]]
    groups = group_items(items["title"].to_list(), images, items["item_id"].to_list())
    splits = split_of(groups)
    columns = _target_columns(items)
    classes = {
        name: [value for value, count in zip(*_counted(column), strict=True) if count >= MIN_ITEMS]
        for name, column in columns.items()
    }

    def samples(split: Split) -> Samples:
        rows = np.flatnonzero(splits == split)
        return Samples(
            images=[images[row] for row in rows],
            targets={name: _encode(columns[name], classes[name])[rows] for name in columns},
            classes=classes,
        )

    return MyntraPictures(*(samples(split) for split in get_args(Split)))


def group_items(
    titles: Sequence[str], images: Sequence[Path], item_ids: Sequence[str]
) -> list[str]:
    """Return each item's group, named by the group's first item id (N).

    Items that share a title or a picture file are in one group, also through other items.
    """
    hashes = [hashlib.sha256(image.read_bytes()).hexdigest() for image in images]
    groups = _linked([title.strip().casefold() for title in titles], hashes)
    first = dict(zip(reversed(groups), reversed(item_ids), strict=True))
    return [first[group] for group in groups]


def split_of(groups: Sequence[str]) -> NDArray[np.str_]:
    """Return the split of each item (N,): 80 % train, 10 % val and 10 % test, whole groups each.

    A hash of the group decides, so the split is the same on every machine.
    """
    tenth = {
        group: int(hashlib.sha256(group.encode()).hexdigest(), 16) % 10 for group in set(groups)
    }
    of_tenth = {8: "val", 9: "test"}
    return np.array([of_tenth.get(tenth[group], "train") for group in groups])


def _linked(*keys: Sequence[str]) -> list[int]:
    """Return a group for each row (N,), in which rows are connected by equal keys."""
    parents = list(range(len(keys[0])))

    def find(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for column in keys:
        first: dict[str, int] = {}
        for row, key in enumerate(column):
            parents[find(row)] = find(first.setdefault(key, row))
    return [find(row) for row in range(len(parents))]


def _target_columns(items: pl.DataFrame) -> dict[str, list[str]]:
    attributes = [{pair["key"]: pair["value"] for pair in one} for one in items["attributes"]]
    return {
        "sub_category": items["category"].list.get(1).to_list(),
        "article_type": items["category"].list.get(2).to_list(),
        "base_colour": [one.get("base_colour", "") for one in attributes],
        "usage": [one.get("usage", "") for one in attributes],
    }


def _counted(column: Iterable[str]) -> tuple[list[str], list[int]]:
    values, counts = np.unique(np.array([*column]), return_counts=True)
    return values.tolist(), counts.tolist()


def _encode(column: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    index = {name: row for row, name in enumerate(classes)}
    return np.array([index.get(value, UNKNOWN) for value in column], dtype=np.int64)
