"""Find what a shop's tables cannot train, with the reason, before anything is trained."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import text.dataset
import vision.dataset
from recsys.catalogue.embedder import item_texts
from recsys.config import IdentificationConfig, TrainConfig
from recsys.data.arrays import Ints
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.errors import DataError
from recsys.training.samples import (
    PictureSamples,
    captioned_pictures,
    label_pictures,
    labelled_photos,
)
from text.config import AUTO, TextConfig
from text.networks.start import can_choose
from text.tokens.normalize import normalize
from vision.words import INSTALL, can_read_words

# In ``left_out``, beside the names of the parts: these networks stay as they were built.
TEXT_TRAINING, ITEMS_TRAINING = "training of text", "training of items"
WORDS = "words on photos"  # of identification, which does without
MIN_EVENT_TIMES = 3  # of a history, of what the ranker learns from, and of its validation


def why_left_out(
    dataset: Dataset,
    pictures: PictureSamples,
    texts: text.dataset.Samples,
    title_groups: Ints,
    config: TrainConfig,
) -> dict[str, str]:
    """Return what of towers, fusion and identification is not trained, each with the reason.

    Args:
        dataset: Validated tables.
        pictures: Pictures of the items and photos.
        texts: Titles and descriptions of the items that have one.
        title_groups: Group of each item, int64 (N,); items of one title share it.
        config: Settings.

    Raises:
        DataError: If there is nothing that a tower could embed.
    """
    no_vision, no_text = why_no_vision(pictures.train), why_no_text(texts)
    # A checkpoint knows words before it learns. Without one, the mean of random vectors, one for
    # each word, still compares words: enough for a shop that begins with one item.
    as_built = bool(no_text and _has_words(texts) and (_knows_words(config.text) or no_vision))
    if no_vision and no_text and not as_built:
        raise DataError(
            f"tables must have titles or pictures to learn from, got none (vision: {no_vision}; "
            f"text: {no_text}); add titles, or pictures of several products or categories"
        )
    has_vision, has_text = not no_vision, not no_text or as_built
    reasons = {
        "vision": no_vision,
        TEXT_TRAINING if as_built else "text": no_text,
        ITEMS_TRAINING: _why_no_fusion(dataset.items, has_vision=has_vision, has_text=has_text),
    }
    if config.alignment.epochs:
        both = has_vision and has_text
        reasons["alignment"] = (
            _why_no_alignment(dataset, title_groups) if both else "it needs both towers"
        )
    no_identification = _why_no_identification(dataset, has_vision=has_vision)
    reasons["identification"] = no_identification
    reasons[WORDS] = None if no_identification else why_no_words(config.identification)
    return {part: reason for part, reason in reasons.items() if reason}


def _knows_words(config: TextConfig) -> bool:
    """Return whether an encoder begins with weights that know words."""
    return can_choose() if config.checkpoint == AUTO else config.checkpoint is not None


def why_no_words(config: IdentificationConfig) -> str | None:
    """Return why no words can be read on photos; None if they can, or are not wanted."""
    if config.words == "off" or can_read_words():
        return None
    return f"rapidocr is not installed ({INSTALL})"


def why_no_vision(samples: vision.dataset.Samples) -> str | None:
    """Return why the vision tower cannot learn, None if it can.

    Args:
        samples: Item pictures, and photos of train that have a label, with their labels.
    """
    if not samples.classes:
        return "two products or categories are needed to learn from, got one at most"
    if not len(samples):
        return "no item has a readable picture, and no photo of train has a label"
    if not _differ(_contents(samples.images)):
        return f"two different pictures are needed to learn from, got {_alike(len(samples))}"
    if not any(_differ(labels[labels >= 0]) for labels in samples.targets.values()):
        one = f"{len(samples)} of one"
        return f"pictures of two products or categories are needed to learn from, got {one}"
    return None


def why_no_text(samples: text.dataset.Samples) -> str | None:
    """Return why the text encoder cannot learn, None if it can.

    Args:
        samples: Titles and descriptions of the items that have one.
    """
    if not _has_words(samples):
        return "no item has a title or description"
    if not _differ(filter(None, map(normalize, samples.texts))):
        return (
            "two different titles or descriptions are needed to learn from, got "
            f"{_alike(len(samples))}"
        )
    return None


def why_no_ranking(interactions: Interactions | None) -> str | None:
    """Return why no configuration could train user encoder and ranker, None if one could.

    Args:
        interactions: All events, or None without a table of events.
    """
    if interactions is None:
        return "no events table was given"
    if interactions.n_items < 2:
        return f"two items are needed, got {interactions.n_items}"
    n_times = len(np.unique(interactions.timestamps_us))
    if n_times < MIN_EVENT_TIMES:
        return f"events at {MIN_EVENT_TIMES} different times are needed, got {n_times}"
    return None


def _why_no_fusion(items: pl.DataFrame, *, has_vision: bool, has_text: bool) -> str | None:
    pictured = items["image"].is_not_null().to_numpy() & has_vision
    named = np.array([one is not None for one in item_texts(items)], dtype=np.bool_) & has_text
    count = int((pictured | named).sum())
    return None if count > 1 else f"two items with a title or picture are needed, got {count}"


def _why_no_alignment(dataset: Dataset, title_groups: Ints) -> str | None:
    captioned = captioned_pictures(dataset, label_pictures(dataset), title_groups)
    if _differ(captioned.groups):
        return None
    return f"pictures of two titles are needed, got {len(captioned.texts)}"


def _why_no_identification(dataset: Dataset, *, has_vision: bool) -> str | None:
    if not has_vision:
        return "it needs the vision tower"
    if not len(dataset.items):
        return "no items table was given"
    if not (labelled_photos(dataset)["split"] == "val").any():
        return "no photos of the val split name their item"
    return None if len(dataset.items) > 1 else "two items are needed, got 1"


def _has_words(samples: text.dataset.Samples) -> bool:
    return any(map(normalize, samples.texts))


def _differ(values: Iterable[Any]) -> bool:
    """Return whether two of the values differ; reads no further than the first that does."""
    every = iter(values)
    first = next(every, None)
    return any(value != first for value in every)


def _contents(images: Sequence[Path]) -> Iterator[bytes]:
    """Yield the bytes of the files that can be read; decoding reports the others."""
    for image in images:
        try:
            yield image.read_bytes()
        except OSError:
            continue


def _alike(count: int) -> str:
    return f"{count} alike" if count > 1 else str(count)
