"""Paired tests between systems: could chance explain a difference, and what would be found?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from recsys.data.arrays import Doubles
from recsys.errors import InvalidArgumentError

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 10_000
SIGNS_AT_ONCE = 4_000_000


class PairedTest(NamedTuple):
    """The test of one difference in a table of several.

    Args:
        p: Probability of a difference at least as large if the two systems were alike.
        p_holm: The same, corrected for the number of systems in the table.
        detectable: Smallest true difference that a table of this size finds in 80 % of cases.
    """

    p: float
    p_holm: float
    detectable: float


def paired_p_values(differences: Doubles, *, resamples: int = RESAMPLES, seed: int = 0) -> Doubles:
    """Return the two-sided p-value of the mean of every column, by a permutation test (M,).

    Fisher's randomisation test for paired scores: if two systems are alike, each user's difference
    could as well have the other sign (Smucker et al., 2007,
    https://doi.org/10.1145/1321440.1321528). All patterns of signs are tried if they are no more
    than ``resamples``, else that many random ones, with 1 added to both counts.

    Args:
        differences: One row per user, ours minus theirs (U, M).
        resamples: Number of patterns of signs.
        seed: Random seed for the signs.

    Raises:
        InvalidArgumentError: If ``differences`` has no row or a value that is not finite.
    """
    if differences.ndim != 2 or not len(differences):
        raise InvalidArgumentError(
            f"differences must have shape (U, M) with U >= 1, got {differences.shape}"
        )
    if not np.isfinite(differences).all():
        raise InvalidArgumentError("differences must be finite, got NaN or infinity")
    # Users without any difference add nothing to any sum.
    differences = differences[(differences != 0).any(axis=1)]
    n_users = len(differences)
    # Sums of the same numbers in another order differ in the last bits.
    observed = np.abs(differences.sum(axis=0)) * (1 - 1e-9)
    reached = np.zeros(differences.shape[1], dtype=np.int64)
    is_exact = n_users < 63 and 2**n_users <= resamples
    for signs in _all_signs(n_users) if is_exact else _random_signs(n_users, resamples, seed):
        reached += (np.abs(signs @ differences) >= observed).sum(axis=0)
    return reached / 2**n_users if is_exact else (reached + 1) / (resamples + 1)


def holm(p_values: Doubles) -> Doubles:
    """Return the p-values of one family, adjusted by the step-down method of Holm (1979) (M,).

    The probability of even one false discovery among the family is then at most the threshold.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


def detectable_differences(
    differences: Doubles, *, family: int = 1, alpha: float = ALPHA, power: float = POWER
) -> Doubles:
    """Return the smallest true difference of each column that would be found (M,).

    By the normal law of means: (z of 1 - alpha / (2 family) + z of the power) standard errors
    (Sakai, 2016, https://doi.org/10.1145/2911451.2911492). The spread between users is taken from
    the differences. With one user it is 0, which says nothing.

    Args:
        differences: One row per user (U, M).
        family: Number of systems in the table; alpha is shared among them, as in Holm's first step.
        alpha: Threshold of the corrected p-value.
        power: Probability of finding such a difference.
    """
    errors = differences.std(axis=0, ddof=min(1, len(differences) - 1)) / np.sqrt(len(differences))
    return np.asarray((norm.ppf(1 - alpha / (2 * family)) + norm.ppf(power)) * errors)


def _all_signs(n_users: int) -> Iterator[Doubles]:
    bits = (np.arange(2**n_users)[:, None] >> np.arange(n_users)) & 1
    yield _signs(bits)


def _random_signs(n_users: int, resamples: int, seed: int) -> Iterator[Doubles]:
    generator = np.random.default_rng(seed)
    at_once = max(1, SIGNS_AT_ONCE // n_users)
    for start in range(0, resamples, at_once):
        block = min(at_once, resamples - start)
        yield _signs(generator.integers(0, 2, size=(block, n_users), dtype=np.int8))


def _signs(bits: NDArray[np.integer]) -> Doubles:
    """Return -1 for each 0 and 1 for each 1."""
    signs: Doubles = bits.astype(np.float64)
    signs *= 2.0
    signs -= 1.0
    return signs
