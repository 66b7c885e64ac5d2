"""k-fold cross-validation: every picture is predicted by a tower that was not trained on it."""

import logging
import math
import statistics
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from vision.arrays import Floats, Ints
from vision.config import VisionConfig
from vision.dataset import Rejected, Samples
from vision.device import Device, resolve_device
from vision.errors import InvalidArgumentError
from vision.finetuning import finetune
from vision.networks.start import decide_start, warn_of_random_weights
from vision.tower import VisionTower

logger = logging.getLogger(__name__)


class Fold(NamedTuple):
    """The rows to train on and the rows to validate on."""

    train: Ints
    validation: Ints


class CrossValidation(NamedTuple):
    """Metrics of all folds, and predictions for pictures that were not trained on."""

    folds: tuple[dict[str, float], ...]  # metrics of each fold
    mean: dict[str, float]  # mean over the folds that have the metric
    std: dict[str, float]  # standard deviation over those folds, nan if there is only one
    probabilities: dict[str, Floats]  # target -> (n, C), nan for unreadable pictures
    rejected: tuple[Rejected, ...]  # pictures that could not be read


def split_folds(
    samples: Samples,
    n_folds: int,
    *,
    seed: int,
    target: str | None = None,
    groups: Sequence[Hashable] | None = None,
) -> list[Fold]:
    """Return folds in which every row is validated exactly once.

    Every class is spread evenly over all folds, and pictures without a label count as a class. A
    class with fewer pictures than folds is missing from the validation of some folds. A class with
    a single picture, or with all pictures in one group, is validated by a tower that was never
    trained on it, so its pictures count as errors.

    Args:
        samples: Samples to split.
        n_folds: Number of folds, at least 2.
        seed: Random seed of the shuffle.
        target: Target whose classes are spread evenly. None is the last target.
        groups: Group of every picture, such as its product or customer. Pictures of one group stay
            in one fold. None splits by picture.

    Raises:
        InvalidArgumentError: If there are too few pictures or groups for that many folds, or the
            target is unknown.
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
        # The docstring says what happens to rare classes, and a shop has many of them.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [Fold(*rows) for rows in splitter.split(labels, labels, codes)]


def _labels(samples: Samples, target: str | None) -> Ints:
    names = list(samples.targets)
    if not names or (target is not None and target not in names):
        raise InvalidArgumentError(
            f"target must be one of {', '.join(names) or '(none)'}, got {target!r}"
        )
    return samples.targets[target or names[-1]]


def _number(groups: Sequence[Hashable], count: int) -> Ints:
    """Return the number of each picture's group, int64 (n,)."""
    if len(groups) != count:
        raise InvalidArgumentError(
            f"groups must have one entry for each of {count} pictures, got {len(groups)}"
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def cross_validate(
    samples: Samples,
    config: VisionConfig,
    folds: Sequence[Fold],
    *,
    workdir: Path,
    seed: int,
    progress: bool = False,
    device: Device = "auto",
) -> CrossValidation:
    """Return metrics and predictions of one tower per fold, trained on the other folds.

    Each fold is fine-tuned in a folder of its own. Called again after an interruption, finished
    folds are not trained again, and the interrupted fold continues from its last epoch. With
    ``patience``, the best epoch is chosen on the pictures that it is measured on, so the metrics
    are slightly too good.

    Args:
        samples: Pictures and labels.
        config: Configuration of every fold's training.
        folds: Result of ``split_folds``.
        workdir: Folder for checkpoints, in folders ``fold-0`` and so on. The caller deletes it.
        seed: Random seed of every fold's training.
        progress: Whether to show Lightning's progress bar.
        device: Device to compute on, see ``finetune``.

    Raises:
        InvalidArgumentError: If a fold trains on a row that it validates, two folds validate the
            same row, or ``finetune`` refuses the samples or the configuration.
        TrainingError: If ``finetune`` cannot train or resume a fold.
    """
    _check_apart(folds)
    warn_of_random_weights(config)
    config = decide_start(config)
    shapes = {name: (len(samples), len(names)) for name, names in samples.classes.items()}
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
        logger.info("fold %d of %d: %s", number + 1, len(folds), result.metrics)
    mean, std = summarise(metrics)
    return CrossValidation(tuple(metrics), mean, std, probabilities, tuple(rejected.values()))


def _check_apart(folds: Sequence[Fold]) -> None:
    """Raise if a fold trains on a row that it validates, or two folds validate the same row."""
    for number, fold in enumerate(folds):
        shared = np.intersect1d(fold.train, fold.validation)
        if len(shared):
            raise InvalidArgumentError(
                f"folds must not train on the rows that they validate, but fold {number} does so "
                f"with {len(shared)}, such as row {shared[0]}"
            )
    validated = [row for fold in folds for row in fold.validation.tolist()]
    if len(set(validated)) < len(validated):
        raise InvalidArgumentError(
            f"folds must validate every row at most once, got {len(validated)} rows of which "
            f"{len(set(validated))} are different"
        )


def _predict(
    tower: VisionTower, samples: Samples, rows: Sequence[int], config: VisionConfig, device: Device
) -> dict[str, Floats]:
    """Return class probabilities (rows, C) of every target."""
    return tower.predict_proba(
        [(samples.root or Path()) / samples.images[row] for row in rows],
        batch_size=config.batch_size,
        device=resolve_device(device),
    )


def summarise(folds: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean and the standard deviation of every metric over the folds that have it.

    Args:
        folds: Metrics of every fold.
    """
    names = dict.fromkeys(name for metrics in folds for name in metrics)
    values = {name: [metrics[name] for metrics in folds if name in metrics] for name in names}
    return (
        {name: statistics.fmean(v) for name, v in values.items()},
        {name: statistics.stdev(v) if len(v) > 1 else math.nan for name, v in values.items()},
    )
