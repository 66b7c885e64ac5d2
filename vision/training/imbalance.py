"""Rare and frequent classes: weights against their imbalance, and sampling by these weights."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from vision.config import Weighting
from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError

# With it, pictures of one class beyond 1 / (1 - beta) = 100 add little. The paper's 0.999 and
# 0.9999 equal plain balancing if classes have tens or hundreds of pictures.
EFFECTIVE_BETA = 0.99


def count_classes(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Return the number of labels (n,) of each class, int64 (C,), without unknown labels (-1)."""
    return np.bincount(labels[labels != UNKNOWN], minlength=n_classes).astype(np.int64)


def class_weights(
    counts: NDArray[np.int64], weighting: Weighting, beta: float = EFFECTIVE_BETA
) -> NDArray[np.float64] | None:
    """Return a weight for each class (C,) with mean 1 over the pictures, or None for ``none``.

    ``balanced`` is one over the count. ``effective_number`` is that of Cui et al. (2019,
    https://arxiv.org/abs/1901.05555): one over (1 - beta ** count) / (1 - beta), a number that
    stops growing with the count. They normalise over classes, not pictures. Absent classes get 0.

    Args:
        counts: Number of pictures of each class, (C,).
        weighting: Rule by which weights follow from counts.
        beta: Constant of ``effective_number``: 0 gives all classes the same weight, and values
            near 1 give the weights of ``balanced``.

    Raises:
        InvalidArgumentError: If beta is below 0, or 1 or above.
    """
    if not 0 <= beta < 1:
        raise InvalidArgumentError(f"beta must be at least 0 and below 1, got {beta}")
    if weighting == "none":
        return None
    numbers = counts.astype(np.float64)
    if weighting == "effective_number":
        numbers = (1.0 - beta**numbers) / (1.0 - beta)
    weights = np.zeros(len(counts))
    np.divide(1.0, numbers, out=weights, where=counts > 0)
    # Without any label the sum is 0 and cannot be normalised by.
    mean = float(weights @ counts) / max(int(counts.sum()), 1)
    return weights / mean if mean > 0 else weights


def sampling_weights(labels: NDArray[np.int64], weighting: Weighting) -> NDArray[np.float64]:
    """Return how often to draw each picture, relative to a mean of 1, float64 (n,).

    Args:
        labels: Class indices (n,), -1 where unknown; unknown labels get the mean.
        weighting: Rule by which weights follow from counts. ``balanced`` draws all classes equally
            often, so that a class of three pictures repeats them again and again.
    """
    drawn = np.ones(len(labels))
    weights = class_weights(count_classes(labels, int(labels.max(initial=UNKNOWN)) + 1), weighting)
    if weights is not None:
        known = labels != UNKNOWN
        drawn[known] = weights[labels[known]]
    return drawn


class EpochDraw(Sampler[int]):
    """Rows drawn by weight, with replacement; they depend only on seed and epoch.

    Args:
        weights: Relative frequency of each row, (n,).
        count: Number of rows in one epoch.
        seed: Random seed of the run.

    Raises:
        InvalidArgumentError: If a weight is negative or not finite, or all weights are 0.
    """

    def __init__(self, weights: NDArray[np.float64], count: int, seed: int) -> None:
        total = weights.sum()
        if not (np.isfinite(total) and total > 0 and weights.min() >= 0):
            raise InvalidArgumentError(
                f"weights must be finite, not negative and not all 0, got a sum of {total}"
                f" and a least of {weights.min(initial=np.inf)}"
            )
        self.shares, self.count = weights / total, count
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rows: list[int] = rng.choice(len(self.shares), size=self.count, p=self.shares).tolist()
        return iter(rows)
