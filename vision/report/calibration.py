"""Whether probabilities mean what they say, and the temperature that makes them."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from vision.errors import InvalidArgumentError
from vision.report.results import Bin, Reliability

N_BINS = 15
# Where every answer is right, the likelihood only grows as the temperature falls.
_TEMPERATURES = (0.05, 20.0)

Probabilities = NDArray[np.float32] | NDArray[np.float64]


def reliability(probabilities: Probabilities, labels: NDArray[np.int64]) -> Reliability:
    """Return the expected calibration error and the bins that it is the mean of.

    Guo et al. (2017, https://arxiv.org/abs/1706.04599): confidence is the largest probability;
    over 15 bins of equal width, the sum of |bin| / n * |accuracy(bin) - mean confidence(bin)|.

    Args:
        probabilities: (n, C).
        labels: (n,), n >= 1, none unknown.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    # The paper's bins are open below and closed above, so that 1 is in the last.
    edges = np.linspace(0.0, 1.0, N_BINS + 1)[1:-1]
    positions = np.searchsorted(edges, confidence, side="left")
    counts, confidences, rights = (
        np.bincount(positions, weights=weights, minlength=N_BINS)
        for weights in (None, confidence, right)
    )
    ece = float(np.abs(rights - confidences).sum() / len(labels))
    bins = tuple(
        Bin(float(c / n), float(r / n), int(n)) if n else None
        for n, c, r in zip(counts, confidences, rights, strict=True)
    )
    return Reliability(ece, bins)


def fit_temperature(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Return the temperature under which these labels are likeliest, between 0.05 and 20.

    Guo et al. (2017). It is fitted to probabilities in place of logits: their logarithms differ
    from the logits by a constant per picture, which the softmax takes away again.

    Args:
        probabilities: (n, C), of other pictures than those that are measured.
        labels: (n,), -1 where unknown.

    Raises:
        InvalidArgumentError: If no label is known.
    """
    known = labels >= 0
    if not known.any():
        raise InvalidArgumentError(
            f"labels must have a known one to fit a temperature to, got {len(known)} -1"
        )
    logits, own = _logits(probabilities[known]), labels[known, None]

    def negative_log_likelihood(log_temperature: float) -> float:
        log_likelihoods = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(np.take_along_axis(log_likelihoods, own, axis=1).mean())

    # Convex in 1 / temperature, so there is one minimum to find.
    bounds = [math.log(limit) for limit in _TEMPERATURES]
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded")
    return math.exp(found.x)


def at_temperature(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """Return the probabilities (n, C) of logits divided by the temperature.

    Raises:
        InvalidArgumentError: If the temperature is not above 0.
    """
    if not temperature > 0:
        raise InvalidArgumentError(f"temperature must be above 0, got {temperature}")
    scaled: NDArray[np.float64] = softmax(_logits(probabilities) / temperature, axis=1)
    return scaled


def _logits(probabilities: Probabilities) -> NDArray[np.float64]:
    # float32 rounds the least likely classes to 0, whose logarithm would be infinite.
    smallest = float(np.finfo(np.float32).tiny)
    return np.log(np.maximum(probabilities.astype(np.float64), smallest))
