"""k-fold cross-validation: every picture is predicted by a tower that has not seen it."""

import logging
import math
import statistics
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from vision.config import VisionConfig
from vision.dataset import Rejected, Samples
from vision.device import Device, resolve_device
from vision.errors import InvalidArgumentError
from vision.finetuning import finetune
from vision.tower import VisionTower

logger = logging.getLogger(__name__)

Rows = NDArray[np.int64]


class Fold(NamedTuple):
    """Rows of the samples, each in one of the two."""

    train: Rows
    validation: Rows


class CrossValidation(NamedTuple):
    """What the towers of all folds say about pictures that they have not seen."""

    folds: tuple[dict[str, float], ...]  # metrics of each fold
    mean: dict[str, float]  # over the folds that have the metric
    std: dict[str, float]  # between those folds; nan where there is only one
    probabilities: dict[str, NDArray[np.float32]]  # target -> (n, C); nan where unreadable
    rejected: tuple[Rejected, ...]  # pictures that could not be read


def split_folds(
    samples: Samples,
    n_folds: int,
    *,
    seed: int,
    target: str | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[Fold]:
    """Return folds whose validation rows are together every row, once.

    Every class has about equal shares of all folds; pictures without a label count as a class. A
    class with fewer pictures than folds is spread over that many folds and missing from the
    validation of the others. A class of a single picture, or whose pictures are all of one group,
    is validated by a tower that was not shown it, and counts as an error.

    Args:
        samples: What to split.
        n_folds: Number of folds, at least 2.
        seed: Seed of the shuffle.
        target: Whose classes are shared out; the last target if unset.
        groups: Something equal for pictures that must stay together, such as those of one product
            or one customer, for each picture. Unset splits by picture.

    Raises:
        InvalidArgumentError: If there are too few pictures or groups for that many folds.
    """
    labels = _labels(samples, target)
    codes = None if groups is None else _number(groups, len(samples))
    largest = int(np.unique(labels, return_counts=True)[1].max()) if len(labels) else 0
    most = largest if codes is None else min(largest, len(np.unique(codes)))
    if not 2 <= n_folds <= most:
        raise InvalidArgumentError(
            f"n_folds must be between 2 and {most} (pictures of the largest class"
            f"{'' if codes is None else ', or groups'}), got {n_folds}"
        )
    kind = StratifiedKFold if codes is None else StratifiedGroupKFold
    splitter = kind(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # What becomes of rare classes is said above; a shop has many.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [Fold(*rows) for rows in splitter.split(labels, labels, codes)]


def _labels(samples: Samples, target: str | None) -> Rows:
    names = list(samples.targets)
    if not names or (target is not None and target not in names):
        raise InvalidArgumentError(
            f"target must be one of {', '.join(names) or '(none)'}, got {target!r}"
        )
    return samples.targets[target or names[-1]]


def _number(groups: Sequence[Hashable], count: int) -> Rows:
    """Return a number for every group, int64 (n,)."""
    if len(groups) != count:
        raise InvalidArgumentError(
            f"groups must be one for each of {count} pictures, got {len(groups)}"
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def cross_validate(
    samples: Samples,
    config: VisionConfig,
    n_folds: int,
    *,
    workdir: Path,
    seed: int,
    target: str | None = None,
    groups: Sequence[Hashable] | None = None,
    progress: bool = False,
    device: Device = "auto",
) -> CrossValidation:
    """Return how well towers trained on all folds but one do on that one, and their predictions.

    Each fold is fine-tuned in a folder of workdir. Called again after an interruption, finished
    folds are not trained again and the interrupted one goes on from its last epoch. With patience,
    the epoch that is kept was chosen on the fold it is measured on, which flatters it a little.

    Args:
        samples: Pictures and labels.
        config: What each fold is trained with.
        n_folds: Number of folds; see ``split_folds``, also for target and groups.
        workdir: Folder of the folds' checkpoints, ``fold-0`` and on; the caller's to delete.
        seed: Seed of the split and of every fold's training.
        target: Whose classes the folds have equal shares of.
        groups: What must not be torn apart, for each picture.
        progress: Show Lightning's progress bar.
        device: Where to compute; as for ``finetune``.

    Raises:
        InvalidArgumentError: As ``split_folds`` and ``finetune``.
        TrainingError: As ``finetune``.
    """
    folds = split_folds(samples, n_folds, seed=seed, target=target, groups=groups)
    shapes = {name: (len(samples), len(of)) for name, of in samples.classes.items()}
    probabilities = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
    metrics: list[dict[str, float]] = []
    rejected: dict[Path, Rejected] = {}
    for number, (train, validation) in enumerate(folds):
        result = finetune(
            samples.take(train),
            config,
            validation=samples.take(validation),
            workdir=workdir / f"fold-{number}",
            seed=seed,
            progress=progress,
            device=device,
        )
        metrics.append(result.metrics)
        rejected.update({picture.image: picture for picture in result.rejected})
        rows = [int(row) for row in validation if samples.images[row] not in rejected]
        for name, predicted in _predict(result.tower, samples, rows, config, device).items():
            probabilities[name][rows] = predicted
        logger.info("fold %d of %d: %s", number + 1, n_folds, result.metrics)
    mean, std = _summarise(metrics)
    return CrossValidation(tuple(metrics), mean, std, probabilities, tuple(rejected.values()))


def _predict(
    tower: VisionTower, samples: Samples, rows: Sequence[int], config: VisionConfig, device: Device
) -> dict[str, NDArray[np.float32]]:
    """Return probabilities (rows, C) of every target."""
    return tower.predict(
        [(samples.root or Path()) / samples.images[row] for row in rows],
        batch_size=config.batch_size,
        device=resolve_device(device),
    )


def _summarise(folds: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean and the standard deviation of every metric over the folds that have it."""
    names = dict.fromkeys(name for metrics in folds for name in metrics)
    values = {name: [metrics[name] for metrics in folds if name in metrics] for name in names}
    return (
        {name: statistics.fmean(these) for name, these in values.items()},
        {name: statistics.stdev(v) if len(v) > 1 else math.nan for name, v in values.items()},
    )
