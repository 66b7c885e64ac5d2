"""What a fine-tuning run reads: decoded pictures, their order, how many there are of each class."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision.config import VisionConfig
from vision.dataset import EpochShuffle, PictureSet, Samples, decode_samples
from vision.errors import TrainingError
from vision.squares import stored_preprocess
from vision.training.imbalance import EpochDraw, count_classes, sampling_weights
from vision.training.processes import Order, Shard
from vision.transforms import Preprocess


class TrainingData(NamedTuple):
    """Decoded pictures of one run."""

    train: PictureSet
    validation: PictureSet | None


class SpillFolder(NamedTuple):
    """Where pictures are kept that do not fit into memory, until the run ends."""

    folder: Path
    shard: Shard  # every process keeps its own
    cleanup: contextlib.ExitStack

    def new_file(self, name: str) -> Path:
        """Return a path that is deleted with the run."""
        path = self.folder / f"{name}-{self.shard.rank}.pixels"
        self.cleanup.callback(path.unlink, missing_ok=True)
        return path


def decode_data(
    samples: Samples,
    validation: Samples | None,
    preprocess: Preprocess,
    config: VisionConfig,
    *,
    spill: SpillFolder,
    progress: bool,
) -> TrainingData:
    """Return decoded pictures, in memory or, beyond cache_gb, in files.

    Args:
        samples: What is trained on; kept a little larger than the crops.
        validation: What is measured; kept at the tower's size.
        preprocess: The tower's.
        config: Gives sizes and cache_gb.
        spill: Where the files are.
        progress: Show Lightning's progress bars.

    Raises:
        TrainingError: If fewer than two training pictures can be read.
    """
    stored = stored_preprocess(preprocess, config.train_size or config.size)
    count = 0 if validation is None else len(validation)
    spilled = 3 * (len(samples) * stored.size**2 + count * config.size**2) > config.cache_gb * 1e9

    def decode(part: Samples, name: str, size: Preprocess) -> PictureSet:
        file = spill.new_file(name) if spilled else None
        return decode_samples(part, size, spill=file, progress=progress)

    train = decode(samples, "train", stored)
    if len(train) < 2:
        raise TrainingError(f"training needs at least 2 readable pictures, got {len(train)}")
    return TrainingData(
        train, None if validation is None else decode(validation, "validation", preprocess)
    )


def steps_per_epoch(train: PictureSet, config: VisionConfig) -> int:
    """Return how often the optimiser moves in one pass over the pictures."""
    batches = max(1, len(train) // config.batch_size)
    return -(-batches // config.accumulate)


def class_counts(
    train: PictureSet, classes: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.int64]]:
    """Return the number of readable pictures of every class of every target, (C,)."""
    labels = train.targets[train.rows].numpy()
    return {
        name: count_classes(labels[:, column], len(names))
        for column, (name, names) in enumerate(classes.items())
    }


def build_order(
    train: PictureSet, config: VisionConfig, targets: Sequence[str], seed: int
) -> Order:
    """Return the order in which pictures are trained on, or the draws of them by weight."""
    if config.imbalance.sampling == "none":
        return EpochShuffle(len(train), seed)
    column = targets.index(config.imbalance.target or targets[-1])
    labels = train.targets[train.rows, column].numpy()
    return EpochDraw(sampling_weights(labels, config.imbalance.sampling), len(train), seed)
