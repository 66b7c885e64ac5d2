"""How well probabilities match accuracy, and the temperature that improves the match."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from vision.arrays import Doubles, Floats, Ints
from vision.errors import InvalidArgumentError
from vision.report.results import Bin, Reliability

N_BINS = 15
# Limits are needed because the likelihood has no maximum if every prediction is correct.
_TEMPERATURES = (0.05, 20.0)

Probabilities = Floats | Doubles


def reliability(probabilities: Probabilities, labels: Ints) -> Reliability:
    """Return the expected calibration error, and the bins that it is computed from.

    Guo et al. (2017, https://arxiv.org/abs/1706.04599): the confidence is the largest probability.
    The error is the sum over 15 bins of equal width of |bin| / n * |accuracy - mean confidence|.

    Args:
        probabilities: Class probabilities (n, C), n >= 1.
        labels: Correct classes (n,), all known.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    # The bins of the paper are open below and closed above, so that 1 is in the last bin.
    edges = np.linspace(0.0, 1.0, N_BINS + 1)[1:-1]
    positions = np.searchsorted(edges, confidence, side="left")
    counts, confidences, hits = (
        np.bincount(positions, weights=weights, minlength=N_BINS)
        for weights in (None, confidence, correct)
    )
    ece = float(np.abs(hits - confidences).sum() / len(labels))
    bins = tuple(
        Bin(float(c / n), float(h / n), int(n)) if n else None
        for n, c, h in zip(counts, confidences, hits, strict=True)
    )
    return Reliability(ece, bins)


def fit_temperature(probabilities: Probabilities, labels: Ints) -> float:
    """Return the temperature that maximises the likelihood of the labels, between 0.05 and 20.

    Temperature scaling (Guo et al., 2017), fitted to probabilities instead of logits. The logarithm
    of the probabilities differs from the logits by a constant per picture, which does not change
    the softmax.

    Args:
        probabilities: Class probabilities (n, C) of other pictures than those that are measured.
        labels: Correct classes (n,), -1 where unknown.

    Raises:
        InvalidArgumentError: If no label is known.
    """
    known = labels >= 0
    if not known.any():
        raise InvalidArgumentError(
            f"labels must have a known label to fit a temperature to, got {len(known)} times -1"
        )
    logits, own = _logits(probabilities[known]), labels[known, None]

    def negative_log_likelihood(log_temperature: float) -> float:
        log_likelihoods = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(np.take_along_axis(log_likelihoods, own, axis=1).mean())

    # The function is convex in 1 / temperature, so there is only one minimum.
    bounds = [math.log(limit) for limit in _TEMPERATURES]
    found = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded")
    return math.exp(found.x)


def at_temperature(probabilities: Probabilities, temperature: float) -> Doubles:
    """Return the probabilities (n, C) after the logits are divided by the temperature.

    Args:
        probabilities: Class probabilities (n, C).
        temperature: Divisor of the logits. Values above 1 make predictions less confident.

    Raises:
        InvalidArgumentError: If the temperature is not above 0.
    """
    if not temperature > 0:
        raise InvalidArgumentError(f"temperature must be above 0, got {temperature}")
    scaled: Doubles = softmax(_logits(probabilities) / temperature, axis=1)
    return scaled


def _logits(probabilities: Probabilities) -> Doubles:
    # In float32 very small probabilities become 0, whose logarithm would be infinite.
    smallest = float(np.finfo(np.float32).tiny)
    return np.log(np.maximum(probabilities.astype(np.float64), smallest))
