"""Ranking metrics per user, as trec_eval defines them, on rows of ranked items.

Every metric takes the same three things and returns one number per user, float64 (U,):

- ``ranked``: item rows, best first, int64 (U, K); -1 where a user got fewer than K items.
- ``relevant``: per user, the distinct item rows that count as right; never empty.
- ``k``: number of ranks that count, at most K.

A user without an answer (a row of -1) scores 0. A user without relevant items is an error: there
is nothing to score, and leaving such users out silently would move the mean.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.errors import InvalidArgumentError

Scores = NDArray[np.float64]
Metric = Callable[[Ints, Sequence[Ints], int], Scores]


def recall_at_k(ranked: Ints, relevant: Sequence[Ints], k: int) -> Scores:
    """Return the share of the relevant items that are among the first k (U,).

    trec_eval's ``recall_k``: divided by all relevant items, also where they outnumber k.
    """
    found: Scores = _hits(ranked, relevant, k).sum(axis=1) / _counts(relevant)
    return found


def hit_rate_at_k(ranked: Ints, relevant: Sequence[Ints], k: int) -> Scores:
    """Return 1 where any of the first k is relevant, else 0 (U,); trec_eval's ``success_k``."""
    return np.asarray(_hits(ranked, relevant, k).any(axis=1), dtype=np.float64)


def precision_at_k(ranked: Ints, relevant: Sequence[Ints], k: int) -> Scores:
    """Return the share of the k ranks that hold a relevant item (U,).

    trec_eval's ``P_k``: divided by k, also where fewer than k items were ranked.
    """
    found: Scores = _hits(ranked, relevant, k).sum(axis=1) / k
    return found


def ndcg_at_k(ranked: Ints, relevant: Sequence[Ints], k: int) -> Scores:
    """Return the normalised discounted cumulative gain of the first k (U,).

    trec_eval's ``ndcg_cut_k`` (Järvelin and Kekäläinen, 2002) with binary gains and the discount
    1 / log2(1 + rank); the ideal ranking begins with min(k, number of relevant) relevant items.
    """
    hits = _hits(ranked, relevant, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.cumsum(discounts)[np.minimum(_counts(relevant), k) - 1]
    # Clipped because two orders of the same additions may differ in the last bit.
    gains: Scores = np.minimum(hits @ discounts / ideal, 1.0)
    return gains


def mrr_at_k(ranked: Ints, relevant: Sequence[Ints], k: int) -> Scores:
    """Return 1 / the rank of the first relevant item, 0 without one among the first k (U,)."""
    hits = _hits(ranked, relevant, k)
    reciprocal: Scores = np.where(hits.any(axis=1), 1.0 / (1.0 + hits.argmax(axis=1)), 0.0)
    return reciprocal


def average_precision_at_k(ranked: Ints, relevant: Sequence[Ints], k: int) -> Scores:
    """Return the mean over the relevant items of the precision at their rank (U,).

    trec_eval's ``map_cut_k``: an item beyond k adds 0, and the sum is divided by all relevant
    items, not by min(k, number of relevant).
    """
    hits = _hits(ranked, relevant, k)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    mean: Scores = (precisions * hits).sum(axis=1) / _counts(relevant)
    return mean


def coverage_at_k(ranked: Ints, candidates: NDArray[np.bool_], k: int) -> float:
    """Return the share of the candidates that at least one user is shown in the first k.

    Args:
        ranked: Item rows, best first, int64 (U, K); -1 pads.
        candidates: Which rows could have been shown (N,).
        k: Number of ranks that count.

    Raises:
        InvalidArgumentError: If k is out of range or ``candidates`` is all false.
    """
    _check_k(ranked, k)
    if not candidates.any():
        raise InvalidArgumentError("candidates must have at least one true row, got none")
    shown = np.unique(ranked[:, :k])
    return float(candidates[shown[shown >= 0]].sum() / candidates.sum())


METRICS: Mapping[str, Metric] = {
    "ndcg": ndcg_at_k,
    "recall": recall_at_k,
    "hit_rate": hit_rate_at_k,
    "precision": precision_at_k,
    "mrr": mrr_at_k,
    "average_precision": average_precision_at_k,
}


def _counts(relevant: Sequence[Ints]) -> Ints:
    return np.array([len(rows) for rows in relevant], dtype=np.int64)


def _hits(ranked: Ints, relevant: Sequence[Ints], k: int) -> NDArray[np.bool_]:
    """Return which of the first k ranks hold a relevant item, bool (U, k)."""
    _check_k(ranked, k)
    counts = _counts(relevant)
    _check_relevant(ranked, counts)
    if len(relevant) == 0:
        return np.zeros((0, k), dtype=np.bool_)
    top, right = ranked[:, :k], np.concatenate(relevant)
    _check_rows(top, right)
    # One number per (user, item) pair turns U set look-ups into one.
    stride = max(int(top.max(initial=0)), int(right.max())) + 1
    users = np.arange(len(ranked)) * stride
    wanted = np.repeat(users, counts) + right
    if len(np.unique(wanted)) != len(wanted):
        raise InvalidArgumentError("relevant must name each item once per user, got a repeated one")
    return np.isin(users[:, None] + top, wanted) & (top >= 0)


def _check_k(ranked: Ints, k: int) -> None:
    if ranked.ndim != 2:
        raise InvalidArgumentError(f"ranked must have shape (U, K), got {ranked.shape}")
    if not 1 <= k <= ranked.shape[1]:
        raise InvalidArgumentError(
            f"k must be between 1 and {ranked.shape[1]} (ranks given), got {k}"
        )


def _check_relevant(ranked: Ints, counts: Ints) -> None:
    if len(counts) != len(ranked):
        raise InvalidArgumentError(
            f"relevant must have one entry per ranked user ({len(ranked)}), got {len(counts)}"
        )
    if (counts == 0).any():
        raise InvalidArgumentError(
            f"relevant must not be empty, got none for {int((counts == 0).sum())} users, first at "
            f"{int(np.argmin(counts))}; leave such users out of the queries"
        )


def _check_rows(top: Ints, right: Ints) -> None:
    if right.min() < 0 or top.min(initial=0) < -1:
        raise InvalidArgumentError(
            "item rows must be >= 0 (-1 pads ranked rows), got a negative one"
        )
    ordered = np.sort(top, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise InvalidArgumentError("ranked must name each item once per user, got a repeated one")
