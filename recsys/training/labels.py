"""Class labels for the towers and the fusion, from category paths, attributes and identity."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.data.arrays import Ints

UNKNOWN = -1
MAX_ATTRIBUTE_VALUES = 200  # a column with more is free text or an identifier, not a class
MIN_ATTRIBUTE_COVERAGE = 0.05


@dataclass(frozen=True)
class Labels:
    """Class indices by target name, and the class names.

    Args:
        indices: For each target, the class of each row, int64 (n,); -1 where unknown.
        classes: For each target, its class names.
    """

    indices: Mapping[str, Ints]
    classes: Mapping[str, Sequence[str]]

    def of_rows(self, rows: Ints) -> "Labels":
        """Return the labels of the given rows (k,); row -1 is unknown in every target."""
        # Row -1 is the last one, which is appended here.
        indices = {name: np.append(own, UNKNOWN)[rows] for name, own in self.indices.items()}
        return Labels(indices, self.classes)

    @property
    def n_classes(self) -> dict[str, int]:
        """Number of classes of each target."""
        return {name: len(values) for name, values in self.classes.items()}


def item_labels(items: pl.DataFrame, photos: pl.DataFrame | None = None) -> Labels:
    """Return one target per category level and per attribute that looks like a class.

    Classes of a category level are path prefixes ("Fruit > Apple"), because names repeat between
    branches. A target with a single class teaches nothing and is left out.

    Args:
        items: Table of ``ItemSchema`` (N rows).
        photos: Table of ``PhotoSchema`` whose categories are classes as well, if any.
    """
    values: dict[str, list[str | None]] = {}
    paths = items["category"].to_list()
    if photos is not None:
        paths += photo_paths(photos, items)
    for level in range(max(map(len, paths), default=0)):
        values[f"category_{level + 1}"] = category_names(paths, level)
    for key in _class_attributes(items):
        values[f"attribute_{key}"] = [
            next((pair["value"] for pair in pairs if pair["key"] == key), None)
            for pairs in items["attributes"].to_list()
        ]
    classes = {
        name: sorted({value for value in column if value is not None})
        for name, column in values.items()
    }
    classes = {name: known for name, known in classes.items() if len(known) > 1}
    indices = {name: encode(values[name][: len(items)], known) for name, known in classes.items()}
    return Labels(indices, classes)


def with_identity(labels: Labels, item_ids: Sequence[str]) -> Labels:
    """Return the labels with the item itself as one more target, ``item``.

    Unchanged where a category level already has a class for every item.
    """
    if len(item_ids) in labels.n_classes.values():
        return labels
    rows = np.arange(len(item_ids), dtype=np.int64)
    return Labels({**labels.indices, "item": rows}, {**labels.classes, "item": list(item_ids)})


def photo_labels(photos: pl.DataFrame, items: pl.DataFrame, labels: Labels) -> Labels:
    """Return the labels of photos: those of the item on a photo, and the category of the photo.

    Args:
        photos: Table of ``PhotoSchema`` (n rows).
        items: Table of ``ItemSchema``.
        labels: Class labels of the items.
    """
    known = labels.of_rows(photo_rows(photos, items))
    return Labels(
        {**known.indices, **photo_categories(photos, items, labels.classes)}, labels.classes
    )


def photo_categories(
    photos: pl.DataFrame, items: pl.DataFrame, classes: Mapping[str, Sequence[str]]
) -> dict[str, Ints]:
    """Return the class of each photo (n,) at every category level, -1 where it has none.

    Args:
        photos: Table of ``PhotoSchema`` (n rows).
        items: Table of ``ItemSchema``.
        classes: Class names of every target, such as those of a vision tower.
    """
    paths = photo_paths(photos, items)
    return {
        name: encode(category_names(paths, int(name.removeprefix("category_")) - 1), known)
        for name, known in classes.items()
        if name.startswith("category_")
    }


def photo_paths(photos: pl.DataFrame, items: pl.DataFrame) -> list[list[str]]:
    """Return the category path of each photo: that of its item, or its own if that has none."""
    of_items = [*items["category"].to_list(), []]  # row -1 is the last
    rows, own = photo_rows(photos, items).tolist(), photos["category"].to_list()
    return [of_items[row] or path or [] for row, path in zip(rows, own, strict=True)]


def photo_rows(photos: pl.DataFrame, items: pl.DataFrame) -> Ints:
    """Return the row of the item on each photo (n,), -1 where a photo names no item."""
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"])}
    return np.array([row_of.get(item, UNKNOWN) for item in photos["item_id"]], dtype=np.int64)


def title_groups(items: pl.DataFrame) -> Ints:
    """Return the title group of each item (N,), the same for all items with the same title.

    An item without a title has a group of its own.
    """
    titles = items["title"].to_list()
    groups: dict[object, int] = {}
    keys = [(title or "").strip().casefold() or row for row, title in enumerate(titles)]
    return np.array([groups.setdefault(key, len(groups)) for key in keys], dtype=np.int64)


def category_names(paths: Sequence[Sequence[str]], level: int) -> list[str | None]:
    """Return the prefix of each path down to ``level``, None where the path is shorter."""
    return [" > ".join(path[: level + 1]) if len(path) > level else None for path in paths]


def encode(values: Sequence[str | None], classes: Sequence[str]) -> Ints:
    """Return the index of each value in ``classes`` (n,), -1 for a value that is not a class."""
    index = {name: code for code, name in enumerate(classes)}
    codes = [index.get(value, UNKNOWN) if value else UNKNOWN for value in values]
    return np.array(codes, dtype=np.int64)


def _class_attributes(items: pl.DataFrame) -> list[str]:
    pairs = [(p["key"], p["value"]) for pairs in items["attributes"].to_list() for p in pairs]
    covered = Counter(key for key, _ in pairs)
    distinct = Counter(key for key, _ in set(pairs))
    return sorted(
        key
        for key in covered
        if covered[key] >= MIN_ATTRIBUTE_COVERAGE * len(items)
        and distinct[key] <= min(MAX_ATTRIBUTE_VALUES, covered[key] / 2)
    )
