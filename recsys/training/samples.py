"""What the towers learn from: a shop's pictures and texts, with their labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

import text.dataset
import vision.dataset
from recsys.catalogue.embedder import item_texts
from recsys.data.arrays import Ints
from recsys.data.dataset import Dataset
from recsys.schema import PhotoSchema
from recsys.training.labels import (
    UNKNOWN,
    Labels,
    item_labels,
    photo_labels,
    photo_rows,
    with_identity,
)
from vision.squares import ReadSquare

logger = logging.getLogger(__name__)


def label_pictures(dataset: Dataset) -> Labels:
    """Return the picture labels of the items: category levels, attributes and the item itself.

    Categories of photos are classes as well. The item itself is a class where photos show items, so
    that there is more than one picture of an item, and where there is nothing else to learn.
    """
    labels = item_labels(dataset.items, dataset.photos)
    with_photos = dataset.photos is not None and dataset.photos["item_id"].count() > 0
    if len(dataset.items) and (with_photos or not labels.classes):
        return with_identity(labels, dataset.items["item_id"].to_list())
    return labels


class PictureSamples(NamedTuple):
    """A shop's pictures, by what they are for."""

    train: vision.dataset.Samples  # item pictures, and photos of train that have a label
    validation: vision.dataset.Samples | None  # photos of val
    test: vision.dataset.Samples | None  # photos of test
    unlabelled: tuple[Path, ...]  # photos of train that have none


def picture_samples(dataset: Dataset, labels: Labels) -> PictureSamples:
    """Return the pictures of the items and of every split of the photos, with their labels."""
    items = dataset.items.with_row_index("row").filter(pl.col("image").is_not_null())
    train = _samples(dataset, items["image"], labels.of_rows(_rows(items["row"])))
    if dataset.photos is None:
        return PictureSamples(train, None, None, ())
    of_split = {
        split: _photo_samples(
            dataset, dataset.photos.filter(pl.col("split").fill_null("train") == split), labels
        )
        for split in ("train", "val", "test")
    }
    photos = of_split["train"]
    known = np.zeros(len(photos), dtype=np.bool_)
    for of_target in photos.targets.values():
        known |= of_target != UNKNOWN
    return PictureSamples(
        train=_concatenate(train, photos.take(np.flatnonzero(known))),
        validation=of_split["val"] if len(of_split["val"]) else None,
        test=of_split["test"] if len(of_split["test"]) else None,
        unlabelled=tuple(photos.take(np.flatnonzero(~known)).images),
    )


def warn_of_unseen_classes(samples: PictureSamples) -> None:
    """Log which categories of photos to measure no picture to learn from shows."""
    measured = [part for part in (samples.validation, samples.test) if part is not None]
    for name, classes in samples.train.classes.items():
        if name.startswith("category_"):
            seen = {UNKNOWN, *samples.train.targets[name].tolist()}
            unseen = {code for part in measured for code in part.targets[name].tolist()} - seen
            if unseen:
                logger.warning(
                    "%s: %d of %d classes have photos of val or test, but no picture to learn "
                    "from, such as %r; put some of their photos into train",
                    name,
                    len(unseen),
                    len(classes),
                    classes[min(unseen)],
                )


class Captioned(NamedTuple):
    """Pictures, each with the text of the item on it.

    Args:
        pictures: n pictures, labelled with the classes of the vision tower.
        texts: One text per picture.
        groups: Title group of the item on each picture, int64 (n,); pictures of one group are never
            negatives of each other.
    """

    pictures: vision.dataset.Samples
    texts: Sequence[str]
    groups: Ints

    def read_by(self, read: ReadSquare) -> "Captioned":
        """Return the same pictures and texts, the pictures' files read by ``read``."""
        return self._replace(pictures=replace(self.pictures, read=read))


def captioned_pictures(dataset: Dataset, labels: Labels, title_groups: Ints) -> Captioned:
    """Return item pictures, and photos of train that name their item, with the items' texts.

    Items without a text are left out.

    Args:
        dataset: Validated tables.
        labels: Picture labels of the items.
        title_groups: Group of each item, int64 (N,); items of one title share it.
    """
    items = dataset.items.with_row_index("row").filter(pl.col("image").is_not_null())
    rows = _rows(items["row"])
    pictures = _samples(dataset, items["image"], labels.of_rows(rows))
    if dataset.photos is not None:
        photos = dataset.photos.filter(pl.col("split").fill_null("train") == "train")
        pictures = _concatenate(pictures, _photo_samples(dataset, photos, labels))
        rows = np.concatenate([rows, photo_rows(photos, dataset.items)])
    texts = item_texts(dataset.items)
    kept = np.flatnonzero([row >= 0 and texts[row] is not None for row in rows])
    rows = rows[kept]
    return Captioned(
        pictures=pictures.take(kept),
        texts=[texts[row] or "" for row in rows],
        groups=title_groups[rows],
    )


def text_samples(items: pl.DataFrame, labels: Labels, pairs: Ints) -> text.dataset.Samples:
    """Return the texts of the items that have one, with their labels, categories and pairs.

    Args:
        items: Table of ``ItemSchema`` (N rows).
        labels: Class labels of the N items.
        pairs: Rows of items that go together, int64 (P, 2).
    """
    texts = item_texts(items)
    rows = np.flatnonzero([one is not None for one in texts])
    known = labels.of_rows(rows)
    paths = items["category"].to_list()
    positions = np.full(len(texts), -1)
    positions[rows] = np.arange(len(rows))
    pairs = positions[pairs]
    return text.dataset.Samples(
        texts=[texts[row] or "" for row in rows],
        targets=known.indices,
        classes=known.classes,
        categories=[paths[row] for row in rows],
        pairs=pairs[(pairs >= 0).all(axis=1)],
    )


def training_photos(dataset: Dataset) -> pl.DataFrame:
    """Return the photos of train that name their item; no split means train."""
    if dataset.photos is None:
        return PhotoSchema.create_empty()
    return dataset.photos.filter(
        pl.col("split").fill_null("train") == "train", pl.col("item_id").is_not_null()
    )


def labelled_photos(dataset: Dataset) -> pl.DataFrame:
    """Return the photos of train and val that name their item; no split means train."""
    if dataset.photos is None:
        return PhotoSchema.create_empty()
    photos = dataset.photos.with_columns(pl.col("split").fill_null("train"))
    return photos.filter(pl.col("item_id").is_not_null(), pl.col("split") != "test")


def picture_paths(dataset: Dataset, images: pl.Series) -> list[Path]:
    """Return the files of pictures that a table names."""
    if dataset.images_root is None:
        return []
    return [dataset.images_root / image for image in images]


def _rows(series: pl.Series) -> NDArray[np.int64]:
    return series.cast(pl.Int64).to_numpy()


def _samples(dataset: Dataset, images: pl.Series, labels: Labels) -> vision.dataset.Samples:
    return vision.dataset.Samples(
        images=picture_paths(dataset, images),
        targets=labels.indices,
        classes=labels.classes,
    )


def _photo_samples(
    dataset: Dataset, photos: pl.DataFrame, labels: Labels
) -> vision.dataset.Samples:
    known = photo_labels(photos, dataset.items, labels)
    return _samples(dataset, photos["image"], known)


def _concatenate(
    first: vision.dataset.Samples, second: vision.dataset.Samples
) -> vision.dataset.Samples:
    targets: Mapping[str, NDArray[np.int64]] = {
        name: np.concatenate([first.targets[name], second.targets[name]]) for name in first.targets
    }
    return replace(first, images=[*first.images, *second.images], targets=targets)
