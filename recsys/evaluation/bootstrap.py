"""Percentile bootstrap intervals over users, and of the difference between two systems."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InvalidArgumentError

NUMBERS_AT_ONCE = 4_000_000


class Estimate(NamedTuple):
    """A mean over users with its interval."""

    mean: float
    low: float
    high: float


def estimates(
    values: NDArray[np.float64],
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
    numbers_at_once: int = NUMBERS_AT_ONCE,
) -> list[Estimate]:
    """Return the mean of every column with its percentile bootstrap interval (M entries).

    Users are drawn with replacement (Efron, 1979). All columns see the same draws, and so do two
    calls with the same seed and number of users.

    Args:
        values: One row per user (U, M).
        level: Share of the resampled means inside the interval.
        resamples: Number of resamples of the users.
        seed: Random seed for the draws.
        numbers_at_once: About how many resampling weights are held in memory together.

    Raises:
        InvalidArgumentError: If ``values`` is empty, a value is not finite, or a number is out of
            range.
    """
    _check(values, level, resamples)
    means = _means(values, resamples, seed, numbers_at_once)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return [
        Estimate(float(m), float(a), float(b))
        for m, a, b in zip(values.mean(axis=0), low, high, strict=True)
    ]


def estimate(
    values: NDArray[np.float64], *, level: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> Estimate:
    """Return the mean of one number per user (U,) with its interval; see ``estimates``."""
    return estimates(values[:, None], level=level, resamples=resamples, seed=seed)[0]


def ratio(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, seed: int = 0
) -> Estimate:
    """Return the sum of one column over that of another, both (U,); see ``ratios``."""
    return ratios(numerators[:, None], denominators[:, None], seed=seed)[0]


def ratios(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> list[Estimate]:
    """Return the sums of columns over the sums of others with their intervals (M entries).

    Users are resampled, and the ratio of each resample is taken: the bootstrap of a weighted mean
    whose weights are drawn with the users.

    Args:
        numerators: Weighted values of each user (U, M).
        denominators: Weights of each user (U, M), at least 0 and not all 0.
        level: Share of the resampled ratios inside the interval.
        resamples: Number of resamples of the users.
        seed: Random seed for the draws.

    Raises:
        InvalidArgumentError: As for ``estimates``, or if weights are negative or all 0.
    """
    values = np.concatenate([numerators, denominators], axis=1)
    _check(values, level, resamples)
    if denominators.min() < 0 or not denominators.any(axis=0).all():
        raise InvalidArgumentError(
            f"denominators must be at least 0 and not all 0, got {denominators.min():g} to "
            f"{denominators.max():g}"
        )
    means = _means(values, resamples, seed, NUMBERS_AT_ONCE)
    found = []
    for column, (top, bottom) in enumerate(zip(*np.split(means.T, 2), strict=True)):
        drawn = bottom > 0  # a resample may miss every user with a weight
        tail = (1.0 - level) / 2.0
        low, high = np.quantile(top[drawn] / bottom[drawn], [tail, 1.0 - tail])
        whole = numerators[:, column].sum() / denominators[:, column].sum()
        found.append(Estimate(float(whole), float(low), float(high)))
    return found


def difference(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Estimate:
    """Return the mean of ``ours - theirs`` with its interval; both (U,), the same users in order.

    Pairing removes the differences between users, so the interval is narrower than those of the
    two systems suggest.

    Raises:
        InvalidArgumentError: If the two disagree in length.
    """
    if ours.shape != theirs.shape:
        raise InvalidArgumentError(
            f"theirs must have shape {ours.shape} to match ours, got {theirs.shape}"
        )
    return estimate(ours - theirs, level=level, resamples=resamples, seed=seed)


def _check(values: NDArray[np.float64], level: float, resamples: int) -> None:
    if values.ndim != 2 or len(values) == 0:
        raise InvalidArgumentError(f"values must have shape (U, M) with U >= 1, got {values.shape}")
    if not np.isfinite(values).all():
        raise InvalidArgumentError("values must be finite, got NaN or infinity")
    if not 0.0 < level < 1.0:
        raise InvalidArgumentError(f"level must be between 0 and 1, got {level}")
    if resamples < 1:
        raise InvalidArgumentError(f"resamples must be at least 1, got {resamples}")


def _means(
    values: NDArray[np.float64], resamples: int, seed: int, numbers_at_once: int
) -> NDArray[np.float64]:
    """Return the means of the columns in every resample (resamples, M)."""
    blocks = _draws(len(values), resamples, seed, numbers_at_once)
    return np.concatenate([weights @ values / len(values) for weights in blocks])


def _draws(
    n_users: int, resamples: int, seed: int, numbers_at_once: int
) -> Iterator[NDArray[np.float64]]:
    """Yield how often each user is drawn in each resample, blocks of (resamples, U)."""
    generator = np.random.default_rng(seed)
    at_once = max(1, numbers_at_once // n_users)
    for start in range(0, resamples, at_once):
        block = min(at_once, resamples - start)
        drawn = generator.integers(0, n_users, size=(block, n_users))
        drawn += np.arange(block)[:, None] * n_users
        counts = np.bincount(drawn.ravel(), minlength=block * n_users)
        yield counts.reshape(block, n_users).astype(np.float64)
