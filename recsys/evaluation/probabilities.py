"""How good a system's probabilities are: log-loss and calibration error over the pairs it lists."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Doubles
from recsys.evaluation.bootstrap import Estimate, ratio
from recsys.evaluation.lists import ForeignList, is_among
from recsys.evaluation.queries import Queries

N_BINS = 10
SMALLEST = float(np.finfo(np.float64).eps)  # as in scikit-learn; a sure answer may be wrong


@dataclass(frozen=True)
class Probabilities:
    """How well stated probabilities agree with what users took.

    Args:
        n_pairs: Number of pairs of an asked user and a listed item.
        log_loss: Mean of -log of the probability of what happened, over the pairs; the interval is
            over users.
        calibration_error: Expected calibration error with bins of equal width.
    """

    n_pairs: int
    log_loss: Estimate
    calibration_error: float


def score_probabilities(
    listed: ForeignList, queries: Queries, *, seed: int = 0
) -> Probabilities | None:
    """Return how good a list's probabilities are; None without any for the users who are asked.

    The pairs are those of the list that can be ranked and state one. An item that a list leaves out
    has no probability, so the figures of two systems compare only where they list the same pairs.
    """
    if listed.probabilities is None:
        return None
    users, rows = listed.kept(queries)
    stating = ~np.isnan(listed.probabilities[rows])
    users, rows = users[stating], rows[stating]
    if not len(rows):
        return None
    items, stated = listed.item_rows[rows], listed.probabilities[rows]
    happened = is_among(users, items, queries.relevant, listed.n_items)
    losses = log_losses(stated, happened)
    weights = np.bincount(users, minlength=len(queries)).astype(np.float64)
    sums = np.bincount(users, weights=losses, minlength=len(queries)).astype(np.float64)
    return Probabilities(
        n_pairs=len(rows),
        log_loss=ratio(sums, weights, seed=seed),
        calibration_error=calibration_error(stated, happened),
    )


def log_losses(stated: Doubles, happened: NDArray[np.bool_]) -> Doubles:
    """Return -log of the probability of what happened, for each pair (P,), in nats.

    Probabilities are kept the smallest step of a float64 away from 0 and 1.
    """
    stated = np.clip(stated, SMALLEST, 1 - SMALLEST)
    return -np.log(np.where(happened, stated, 1 - stated))


def calibration_error(
    stated: Doubles, happened: NDArray[np.bool_], *, n_bins: int = N_BINS
) -> float:
    """Return the expected calibration error, from 0 (calibrated) to 1.

    The distance of the mean probability and the share of what happened, in bins of equal width,
    weighted by the pairs in each (Naeini et al., 2015, https://doi.org/10.1609/aaai.v29i1.9602).
    """
    bins = np.minimum((stated * n_bins).astype(np.int64), n_bins - 1)
    gaps = np.bincount(bins, weights=stated - happened, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(stated))


def equal_mass_calibration_error(
    stated: Doubles, happened: NDArray[np.bool_], *, n_bins: int = N_BINS
) -> float:
    """Return the expected calibration error over bins of as many pairs each, from 0 to 1.

    Where most probabilities are small, bins of equal width put nearly all pairs into the first
    (Nixon et al., 2019, https://arxiv.org/abs/1904.01685).
    """
    gaps = (stated - happened)[np.argsort(stated, kind="stable")]
    sums = [part.sum() for part in np.array_split(gaps, n_bins)]
    return float(np.abs(sums).sum() / len(stated))
