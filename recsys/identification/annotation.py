"""Names for what photos show: category, attributes and colours, with their probabilities."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.answers import (
    WORDS_UNREAD,
    Annotation,
    Colour,
    Guess,
    ReadText,
    check_min_probability,
)
from recsys.data.arrays import Doubles
from recsys.errors import InvalidArgumentError
from recsys.identification.heads import Reading
from recsys.identification.photos import SeenPhotos, see_photos
from vision.batches import ImageSource
from vision.dataset import UNKNOWN
from vision.hierarchy import SEPARATOR, choose_classes, find_category_paths, reconcile_levels
from vision.report.calibration import at_temperature
from vision.tower import VisionTower
from vision.words import WordReader, shared_reader

CATEGORY, ATTRIBUTE = "category_", "attribute_"  # prefixes of the names of targets
AS_IT_IS = Reading()
_COLOURS = pl.List(pl.Struct({"colour": pl.String, "share": pl.Float64}))
_WORDS = pl.List(pl.Struct({"text": pl.String, "probability": pl.Float64}))


def name_photos(
    classes: Mapping[str, Sequence[str]],
    seen: SeenPhotos,
    reading: Reading = AS_IT_IS,
    *,
    min_probability: float = 0.5,
) -> pl.DataFrame:
    """Return the table of ``recsys.curation.annotation.annotate``, with words, a row per photo.

    Args:
        classes: Class names of every target of the vision tower.
        seen: What tower and palette make of the photos.
        reading: Temperatures and thresholds of the heads.
        min_probability: Lowest probability of a guess that is filled in.

    Raises:
        InvalidArgumentError: If a temperature does not fit.
    """
    probabilities: dict[str, Doubles] = {
        name: logits.double().softmax(dim=1).numpy() for name, logits in seen.heads.items()
    }
    for target, temperature in reading.temperatures.items():
        if target not in probabilities:
            known = ", ".join(probabilities)
            raise InvalidArgumentError(
                f"temperatures must be for the targets {known}, got {target!r}"
            )
        probabilities[target] = at_temperature(probabilities[target], temperature)
    weighed = {
        name: _weigh(rows, reading.thresholds.get(name, ())) for name, rows in probabilities.items()
    }
    return pl.DataFrame(
        [
            *_name_category(classes, probabilities, weighed, min_probability),
            *_name_attributes(classes, probabilities, weighed, min_probability),
            pl.Series("colours", seen.colours, dtype=_COLOURS),
            pl.Series(
                "words", [[line._asdict() for line in lines] for lines in seen.lines], dtype=_WORDS
            ),
        ]
    )


def annotate_photos(
    tower: VisionTower,
    images: Iterable[ImageSource],
    reading: Reading = AS_IT_IS,
    *,
    min_probability: float = 0.5,
    device: str = "cpu",
    reader: WordReader | None = None,
) -> pl.DataFrame:
    """Return the table of ``name_photos`` for images; arguments and errors are also its own.

    Args:
        tower: Vision tower; it is moved to the device.
        images: Photos as paths, bytes of files or opened images.
        reading: Temperatures and thresholds of the heads.
        min_probability: Lowest probability of a guess that is filled in.
        device: Device to compute on.
        reader: Reader of words; None reads none.

    Raises:
        InvalidImageError: If a photo is not a readable image; the message has its index.
        InvalidArgumentError: If ``min_probability`` is not from 0 to 1.
    """
    check_min_probability(min_probability)
    return name_photos(
        tower.classes,
        see_photos(tower, images, device=device, reader=reader),
        reading,
        min_probability=min_probability,
    )


def annotate_photo(
    tower: VisionTower,
    image: ImageSource,
    reading: Reading,
    min_probability: float,
    *,
    words: bool,
    device: str,
) -> Annotation:
    """Return the annotation of one photo, which does not say yet by which bundle.

    Arguments and errors as for ``annotate_photos``.

    Args:
        tower: Vision tower.
        image: Photo.
        reading: Temperatures and thresholds of the heads.
        min_probability: Lowest probability of a guess that is filled in.
        words: Whether words are read; without the extra for it, the answer is degraded.
        device: Device to compute on.
    """
    reader = shared_reader() if words else None
    named = annotate_photos(
        tower, [image], reading, min_probability=min_probability, device=device, reader=reader
    )
    (found,) = list_annotations(named, bundle_version="")
    return replace(found, degraded=(WORDS_UNREAD,) if words and reader is None else ())


def list_annotations(named: pl.DataFrame, *, bundle_version: str) -> list[Annotation]:
    """Return each row of ``name_photos`` as an answer.

    Args:
        named: Table of ``name_photos``.
        bundle_version: Hash of the bundle that named the photos.
    """
    attributes = {
        name: f"{name}_probability"
        for name in named.columns
        if name.startswith(ATTRIBUTE) and f"{name}_probability" in named.columns
    }
    return [
        Annotation(
            category=tuple(row.get("category") or ()),
            category_probability=row.get("category_probability"),
            attributes={
                name.removeprefix(ATTRIBUTE): Guess(row[name], row[own])
                for name, own in attributes.items()
            },
            colours=tuple(Colour(one["colour"], one["share"]) for one in row["colours"]),
            words=tuple(ReadText(one["text"], one["probability"]) for one in row["words"]),
            bundle_version=bundle_version,
        )
        for row in named.iter_rows(named=True)
    ]


def _name_category(
    classes: Mapping[str, Sequence[str]],
    probabilities: Mapping[str, Doubles],
    weighed: Mapping[str, Doubles],
    min_probability: float,
) -> list[pl.Series]:
    """Return the category path of every picture, as deep as is probable, and its probability.

    ``weighed`` chooses the path, ``probabilities`` say how probable it is.
    """
    levels = {name: of for name, of in classes.items() if name.startswith(CATEGORY)}
    if not levels:
        return []
    paths = find_category_paths(levels)
    agreed = reconcile_levels({name: probabilities[name] for name in levels}, paths)
    chosen = choose_classes(
        reconcile_levels({name: weighed[name] for name in levels}, paths), paths
    )
    first = next(iter(levels))
    sureness = _of_class(agreed[first], chosen[first])
    names = np.full(len(sureness), None, dtype=object)
    for level, known in levels.items():
        own = _of_class(agreed[level], chosen[level])
        sure = (chosen[level] != UNKNOWN) & (own >= min_probability)
        names[sure] = np.array(known, dtype=object)[chosen[level][sure]]
        sureness = np.where(sure, own, sureness)
    parts = [name.split(SEPARATOR) if name is not None else None for name in names]
    return [
        pl.Series("category", parts, dtype=pl.List(pl.String)),
        pl.Series("category_probability", sureness),
    ]


def _name_attributes(
    classes: Mapping[str, Sequence[str]],
    probabilities: Mapping[str, Doubles],
    weighed: Mapping[str, Doubles],
    min_probability: float,
) -> list[pl.Series]:
    """Return the value of every attribute if it is probable enough, and its probability."""
    columns = []
    for target, known in classes.items():
        if target.startswith(ATTRIBUTE):
            best = weighed[target].argmax(axis=1)
            own = _of_class(probabilities[target], best)
            values = [
                known[value] if sure else None
                for value, sure in zip(best, own >= min_probability, strict=True)
            ]
            columns.append(pl.Series(target, values, dtype=pl.String))
            columns.append(pl.Series(f"{target}_probability", own))
    return columns


def _weigh(probabilities: Doubles, thresholds: Sequence[float]) -> Doubles:
    """Return probabilities (n, C) in proportion to their ratio to the thresholds.

    Classes that were added after the thresholds were tuned have none, which is a threshold of 1.
    """
    if not thresholds:
        return probabilities
    added = probabilities.shape[1] - len(thresholds)
    ratios: Doubles = probabilities / np.append(thresholds, np.ones(added))
    ratios /= ratios.sum(axis=1, keepdims=True)
    return ratios


def _of_class(probabilities: Doubles, classes: NDArray[np.int64]) -> Doubles:
    """Return the probability of each row's class (n,); any value for class -1."""
    return np.take_along_axis(probabilities, np.maximum(classes, 0)[:, None], axis=1)[:, 0]
