"""Whether the users of an experiment were divided as planned."""

from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc

from recsys.errors import InvalidArgumentError

MIN_EXPECTED = 5  # below, the approximation by the chi-square distribution is too rough


def sample_ratio_p(observed: Sequence[int], shares: Sequence[float]) -> float | None:
    """Return the probability that chance alone divides users as badly as was observed.

    Pearson's chi-square test of the numbers of users against the planned shares, as Fabijan et al.
    use it (2019, https://doi.org/10.1145/3292500.3330722), who take a value below 0.001 for a sign
    that an experiment is broken: its results should then not be compared.

    Args:
        observed: Number of users in each arm, each user once.
        shares: Planned share of the users of each arm; they add up to 1.

    Returns:
        The p-value; None where an arm is to have fewer than 5 users by now.

    Raises:
        InvalidArgumentError: If there are fewer than two arms, a number is negative, or the shares
            are not above 0 and do not add up to 1.
    """
    numbers, planned = np.asarray(observed, np.float64), np.asarray(shares, np.float64)
    if numbers.ndim != 1 or numbers.shape != planned.shape or len(numbers) < 2:
        raise InvalidArgumentError(
            "observed and shares must have one number for each of two or more arms, got "
            f"{len(observed)} and {len(shares)}"
        )
    if not (numbers >= 0).all():
        raise InvalidArgumentError(f"observed must be numbers of users, got {list(observed)}")
    if not ((planned > 0).all() and abs(planned.sum() - 1) < 1e-9):
        raise InvalidArgumentError(f"shares must be above 0 and add up to 1, got {list(shares)}")
    expected = planned * numbers.sum()
    if expected.min() < MIN_EXPECTED:
        return None
    statistic = ((numbers - expected) ** 2 / expected).sum()
    return float(chdtrc(len(numbers) - 1, statistic))
