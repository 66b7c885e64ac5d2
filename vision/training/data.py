"""The data of a fine-tuning run: decoded pictures, their order, and the number in each class."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision.config import VisionConfig
from vision.dataset import EpochShuffle, PictureSet, Samples, decode_samples
from vision.errors import TrainingError
from vision.squares import stored_preprocess
from vision.training.imbalance import EpochDraw, count_classes, sampling_weights
from vision.training.processes import Order
from vision.training.run import TrainingRun
from vision.transforms import Preprocess


class TrainingData(NamedTuple):
    """Decoded pictures of one run."""

    train: PictureSet
    validation: PictureSet | None


def decode_data(
    samples: Samples,
    validation: Samples | None,
    preprocess: Preprocess,
    config: VisionConfig,
    run: TrainingRun,
) -> TrainingData:
    """Return decoded pictures, in memory, or in temporary files if they take more than cache_gb.

    Args:
        samples: Training pictures; they are stored a little larger than the crops.
        validation: Validation pictures; they are stored at the tower's size.
        preprocess: Size, fit and normalisation of the tower's pictures.
        config: Sizes and cache_gb.
        run: Folder of the temporary files, and whether to show progress.

    Raises:
        TrainingError: If fewer than two training pictures can be read.
        FileAccessError: If the files do not fit on the disk.
    """
    stored = stored_preprocess(preprocess, config.train_size or config.size)
    count = 0 if validation is None else len(validation)
    spilled = 3 * (len(samples) * stored.size**2 + count * config.size**2) > config.cache_gb * 1e9

    def decode(part: Samples, size: Preprocess) -> PictureSet:
        spill = run.workdir if spilled else None
        return decode_samples(part, size, spill=spill, progress=run.progress)

    train = decode(samples, stored)
    if len(train) < 2:
        raise TrainingError(f"training needs at least 2 readable pictures, got {len(train)}")
    return TrainingData(train, None if validation is None else decode(validation, preprocess))


def steps_per_epoch(train: PictureSet, config: VisionConfig) -> int:
    """Return the number of steps of the optimiser in one pass over the pictures."""
    batches = max(1, len(train) // config.batch_size)
    return -(-batches // config.accumulate)


def class_counts(
    train: PictureSet, classes: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.int64]]:
    """Return the number of readable pictures of each class by target name, int64 (C,)."""
    labels = train.targets[train.rows].numpy()
    return {
        name: count_classes(labels[:, column], len(names))
        for column, (name, names) in enumerate(classes.items())
    }


def build_order(
    train: PictureSet, config: VisionConfig, targets: Sequence[str], seed: int
) -> Order:
    """Return the order of the pictures in an epoch: shuffled, or drawn by class weights.

    Args:
        train: Pictures to train on.
        config: Kind of sampling, and the target whose classes are weighted.
        targets: Names of the targets, in the order of the labels' columns.
        seed: Random seed of the run.
    """
    if config.imbalance.sampling == "none":
        return EpochShuffle(len(train), seed)
    column = targets.index(config.imbalance.target or targets[-1])
    labels = train.targets[train.rows, column].numpy()
    return EpochDraw(sampling_weights(labels, config.imbalance.sampling), len(train), seed)
