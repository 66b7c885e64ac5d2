"""Annotate pictures with the heads of the vision tower and the palette."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from recsys.bundle import Bundle
from recsys.catalogue.embedder import check_device
from recsys.identification.annotation import annotate_photos
from vision.batches import ImageSource
from vision.dataset import Samples
from vision.report.calibration import fit_temperature
from vision.tower import VisionTower
from vision.words import require_reader


def annotate(
    bundle: Bundle,
    images: Sequence[ImageSource],
    *,
    min_probability: float = 0.5,
    temperatures: Mapping[str, float] | None = None,
    device: str = "cpu",
    read_words: bool = False,
) -> pl.DataFrame:
    """Return the category, the attributes and the colours of each picture, one row per picture.

    ``category`` is a path, coarse to fine, down to the finest level that is probable enough.
    ``category_probability`` is the probability of that level. Every attribute has two columns,
    ``attribute_X`` and ``attribute_X_probability``. If the best guess is not probable enough, the
    value is null and the probability is that of the guess. ``colours`` are those of
    ``vision.palette``, with their shares. ``words``, if they are wanted, are the lines of letters
    with their probabilities. Only targets that the tower was trained on have columns.

    Args:
        bundle: Bundle with the vision tower.
        images: Pictures as file contents, paths or PIL images.
        min_probability: Lowest probability of a guess that is filled in.
        temperatures: Divisor of the logits by target, from ``fit_temperatures``; None takes those
            that training fitted.
        device: Device of the tower.
        read_words: Whether words on the pictures are read, which takes longer.

    Raises:
        MissingExtraError: If words are wanted and the extra ``ocr`` is not installed.
        InvalidImageError: If a picture cannot be read; the message has its index.
        MissingPartError: If the bundle has no vision tower.
        InvalidArgumentError: If ``min_probability`` is not from 0 to 1, a temperature does not fit,
            or this machine has no such device.
    """
    reading = bundle.reading
    if temperatures is not None:
        reading = reading._replace(temperatures=temperatures)
    named = annotate_photos(
        bundle.vision,
        images,
        min_probability=min_probability,
        reading=reading,
        device=check_device(device),
        reader=require_reader() if read_words else None,
    )
    return named if read_words else named.drop("words")


def fit_temperatures(tower: VisionTower, samples: Samples) -> dict[str, float]:
    """Return the temperature of every target with at least one known label in the samples.

    Args:
        tower: Tower whose probabilities to calibrate.
        samples: Labelled pictures that were not in its training, with its targets and classes.

    Raises:
        ImageError: If a picture cannot be read.
    """
    images = [Path(samples.root or "", image) for image in samples.images]
    probabilities = tower.predict_proba(images)
    return {
        target: fit_temperature(probabilities[target], labels)
        for target, labels in samples.targets.items()
        if (labels >= 0).any()
    }
