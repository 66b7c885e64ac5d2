"""Annotate pictures with the heads of the vision tower and the palette."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.bundle import Bundle
from recsys.catalogue.embedder import check_device
from recsys.data.arrays import Doubles
from recsys.errors import InvalidArgumentError, InvalidImageError
from vision.batches import ImageSource, open_picture
from vision.dataset import UNKNOWN, Samples
from vision.errors import ImageError
from vision.hierarchy import SEPARATOR, choose_classes, find_category_paths, reconcile_levels
from vision.palette import ColourShare, name_colours
from vision.report.calibration import at_temperature, fit_temperature
from vision.tower import VisionTower
from vision.transforms import build_reader, normalise

CATEGORY, ATTRIBUTE = "category_", "attribute_"  # prefixes of the names of targets
BATCH_SIZE = 64
_COLOURS = pl.List(pl.Struct({"colour": pl.String, "share": pl.Float64}))


def annotate(
    bundle: Bundle,
    images: Sequence[ImageSource],
    *,
    min_probability: float = 0.5,
    temperatures: Mapping[str, float] | None = None,
    device: str = "cpu",
) -> pl.DataFrame:
    """Return the category, the attributes and the colours of each picture, one row per picture.

    ``category`` is a path, coarse to fine, down to the finest level that is probable enough.
    ``category_probability`` is the probability of that level. Every attribute has two columns,
    ``attribute_X`` and ``attribute_X_probability``. If the best guess is not probable enough, the
    value is null and the probability is that of the guess. ``colours`` are those of
    ``vision.palette``, with their shares. Only targets that the tower was trained on have columns.

    Args:
        bundle: Bundle with the vision tower.
        images: Pictures as file contents, paths or PIL images.
        min_probability: Lowest probability of a guess that is filled in.
        temperatures: Divisor of the logits by target, from ``fit_temperatures``.
        device: Device of the tower.

    Raises:
        InvalidImageError: If a picture cannot be read; the message has its index.
        MissingPartError: If the bundle has no vision tower.
        InvalidArgumentError: If ``min_probability`` is not from 0 to 1, a temperature does not fit,
            or this machine has no such device.
    """
    if not 0.0 <= min_probability <= 1.0:
        raise InvalidArgumentError(f"min_probability must be from 0 to 1, got {min_probability}")
    probabilities, colours = _read_pictures(bundle.vision.to(check_device(device)), images)
    for target, temperature in (temperatures or {}).items():
        if target not in probabilities:
            known = ", ".join(probabilities)
            raise InvalidArgumentError(
                f"temperatures must be for the targets {known}, got {target!r}"
            )
        probabilities[target] = at_temperature(probabilities[target], temperature)
    return pl.DataFrame(
        [
            *_name_category(bundle.vision.classes, probabilities, min_probability),
            *_name_attributes(bundle.vision.classes, probabilities, min_probability),
            pl.Series("colours", colours, dtype=_COLOURS),
        ]
    )


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


class _Read(NamedTuple):
    """The pixels and the colours of a picture, from decoding it once."""

    pixels: Tensor  # uint8 (3, size, size)
    colours: list[ColourShare]


def _read_pictures(
    tower: VisionTower, images: Sequence[ImageSource]
) -> tuple[dict[str, Doubles], list[list[ColourShare]]]:
    """Return the probabilities (n, C) by target, and the colours of every picture."""
    resize, size = build_reader(tower.preprocess), tower.preprocess.size

    def read(position: int, image: ImageSource) -> _Read:
        try:
            picture = open_picture(image, size)
        except ImageError as error:
            raise InvalidImageError(f"image {position}: {error}") from error
        return _Read(resize(picture), name_colours(picture))

    logits = {name: [torch.zeros(0, len(of))] for name, of in tower.classes.items()}
    colours: list[list[ColourShare]] = []
    # Pictures are decoded once, for tower and palette, and kept at the size of the tower.
    with ThreadPoolExecutor() as threads, torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            pictures = list(threads.map(read, range(start, start + len(batch)), batch))
            pixels = torch.stack([picture.pixels for picture in pictures]).to(tower.device)
            for name, of in tower.logits(normalise(pixels, tower.preprocess)).items():
                logits[name].append(of.cpu())
            colours += [picture.colours for picture in pictures]
    probabilities = {
        name: torch.cat(parts).double().softmax(dim=1).numpy() for name, parts in logits.items()
    }
    return probabilities, colours


def _name_category(
    classes: Mapping[str, Sequence[str]],
    probabilities: Mapping[str, Doubles],
    min_probability: float,
) -> list[pl.Series]:
    """Return the category path of every picture, as deep as is probable, and its probability."""
    levels = {name: of for name, of in classes.items() if name.startswith(CATEGORY)}
    if not levels:
        return []
    paths = find_category_paths(levels)
    agreed = reconcile_levels({name: probabilities[name] for name in levels}, paths)
    chosen = choose_classes(agreed, paths)
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
    min_probability: float,
) -> list[pl.Series]:
    """Return the value of every attribute if it is probable enough, and its probability."""
    columns = []
    for target, known in classes.items():
        if target.startswith(ATTRIBUTE):
            best, own = probabilities[target].argmax(axis=1), probabilities[target].max(axis=1)
            values = [
                known[value] if sure else None
                for value, sure in zip(best, own >= min_probability, strict=True)
            ]
            columns.append(pl.Series(target, values, dtype=pl.String))
            columns.append(pl.Series(f"{target}_probability", own))
    return columns


def _of_class(probabilities: Doubles, classes: NDArray[np.int64]) -> Doubles:
    """Return the probability of each row's class (n,); any value for class -1."""
    return np.take_along_axis(probabilities, np.maximum(classes, 0)[:, None], axis=1)[:, 0]
