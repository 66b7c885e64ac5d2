"""Annotate pictures with words of a list that nobody has trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recsys.answers import check_min_probability
from recsys.bundle import Bundle
from recsys.catalogue.embedder import check_device
from recsys.data.text_files import decode_lines
from recsys.errors import DataError, InvalidArgumentError
from recsys.identification.common_space import place_pictures, place_words
from recsys.identification.photos import run_tower
from vision.batches import ImageSource

TOP = 5  # words that are listed for each picture


def annotate_words(
    bundle: Bundle,
    images: Sequence[ImageSource],
    words: Sequence[str],
    *,
    min_probability: float = 0.5,
    device: str = "cpu",
) -> pl.DataFrame:
    """Return which of the words each picture shows, one row per picture.

    ``class`` is the most probable word, null if it is not probable enough. ``class_probability`` is
    its probability, and ``classes`` are the five most probable words with theirs. Probabilities of
    all words sum to 1, so the list should have a word for everything that pictures may show. They
    come from cosines and a temperature, as in CLIP (Radford et al., 2021,
    https://arxiv.org/abs/2103.00020). The temperature is fitted on the shop's own categories.

    Args:
        bundle: Bundle whose pictures and words can be compared.
        images: Pictures as file contents, paths or PIL images.
        words: At least two different words, or short descriptions.
        min_probability: Lowest probability of a word that is filled in.
        device: Device of the towers.

    Raises:
        InvalidImageError: If a picture cannot be read; the message has its index.
        MissingPartError: If the bundle's pictures and words cannot be compared.
        InvalidArgumentError: If the words are too few or repeat, ``min_probability`` is not from 0
            to 1, or this machine has no such device.
    """
    check_min_probability(min_probability)
    words = [word.strip() for word in words]
    if len(words) < 2 or not all(words) or len(set(words)) < len(words):
        raise InvalidArgumentError(
            f"words must be two or more, different and not empty, got {words[:10]!r}"
        )
    space, device = bundle.common_space, check_device(device)
    fusion = bundle.fusion.to(device)
    seen = run_tower(bundle.vision, images, head=None, views="one", device=device)
    probabilities = space.probabilities(
        place_pictures(seen.embeddings.numpy(), fusion, space.space),
        place_words(words, bundle.text.to(device), fusion, space.space),
    )
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    best = np.take_along_axis(probabilities, order, axis=1)
    rows = list(zip(order.tolist(), best.tolist(), strict=True))
    listed = [
        [{"class": words[n], "probability": p} for n, p in zip(*row, strict=True)] for row in rows
    ]
    return pl.DataFrame(
        {
            "class": [words[n[0]] if p[0] >= min_probability else None for n, p in rows],
            "class_probability": [p[0] for _, p in rows],
            "classes": listed,
        },
        schema={
            "class": pl.String,
            "class_probability": pl.Float64,
            "classes": pl.List(pl.Struct({"class": pl.String, "probability": pl.Float64})),
        },
    )


def read_words(path: Path) -> list[str]:
    """Return the words of a text file with one in each line; empty lines are ignored.

    Raises:
        DataError: If the file cannot be read or is not UTF-8.
    """
    try:
        lines = [line.strip() for line in decode_lines(path)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return [line for line in lines if line]
