"""Ranking metrics per user, as trec_eval defines them, on rows of ranked items.

``find_hits`` compares rankings with the right items once. Every metric reads what it found and k,
the number of ranks that count, and returns one number per user, float64 (U,). ``all_metrics`` is
every metric at every k, in memory that does not grow with the users but for its result.

A user without an answer (a row of -1) scores 0. A user without relevant items is an error: there
is nothing to score, and leaving such users out silently would move the mean.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.errors import InvalidArgumentError

Scores = NDArray[np.float64]
USERS_AT_ONCE = 50_000


class Hits(NamedTuple):
    """Which ranks hold a right item.

    Args:
        found: Whether each rank holds a relevant item, bool (U, K).
        counts: Number of relevant items of each user, int64 (U,).
    """

    found: NDArray[np.bool_]
    counts: Ints

    def first(self, k: int) -> NDArray[np.bool_]:
        """Return the first k ranks, bool (U, k).

        Raises:
            InvalidArgumentError: If k is not between 1 and K.
        """
        _check_k(self.found, k)
        return self.found[:, :k]


Metric = Callable[[Hits, int], Scores]


def all_metrics(
    ranked: Ints,
    relevant: Sequence[Ints],
    ks: Sequence[int],
    *,
    users_at_once: int = USERS_AT_ONCE,
) -> dict[str, Scores]:
    """Return every metric at every k, one number per user (U,) under a name like ``ndcg@10``.

    Args:
        ranked: Item rows, best first, int64 (U, K); -1 where a user got fewer than K items.
        relevant: Per user, the distinct item rows that count as right; never empty.
        ks: Numbers of ranks that count.
        users_at_once: Users who are looked at together; bounds the memory.

    Raises:
        InvalidArgumentError: As for ``find_hits``, or if a k is not between 1 and K.
    """
    if len(relevant) != len(ranked):
        raise InvalidArgumentError(
            f"relevant must have one entry per ranked user ({len(ranked)}), got {len(relevant)}"
        )
    found = {f"{name}@{k}": np.empty(len(ranked)) for name in METRICS for k in ks}
    for start in range(0, len(ranked), users_at_once):
        some = slice(start, start + users_at_once)
        hits = find_hits(ranked[some], relevant[some])
        for name, compute in METRICS.items():
            for k in ks:
                found[f"{name}@{k}"][some] = compute(hits, k)
    return found


def find_hits(ranked: Ints, relevant: Sequence[Ints]) -> Hits:
    """Return which ranks hold a relevant item.

    Args:
        ranked: Item rows, best first, int64 (U, K); -1 where a user got fewer than K items.
        relevant: Per user, the distinct item rows that count as right; never empty.

    Raises:
        InvalidArgumentError: If the two disagree in length, a user has no relevant item, a row is
            below -1, or an item is named twice for one user.
    """
    if ranked.ndim != 2:
        raise InvalidArgumentError(f"ranked must have shape (U, K), got {ranked.shape}")
    counts = np.array([len(rows) for rows in relevant], dtype=np.int64)
    _check_relevant(ranked, counts)
    if len(relevant) == 0:
        return Hits(np.zeros(ranked.shape, dtype=np.bool_), counts)
    right = np.concatenate(relevant)
    _check_rows(ranked, right)
    # One number per (user, item) pair turns U set look-ups into one.
    stride = max(int(ranked.max(initial=0)), int(right.max())) + 1
    users = np.arange(len(ranked)) * stride
    wanted = np.sort(np.repeat(users, counts) + right)
    if not (np.diff(wanted) > 0).all():
        raise InvalidArgumentError("relevant must name each item once per user, got a repeated one")
    pairs = users[:, None] + ranked
    places = np.minimum(np.searchsorted(wanted, pairs), len(wanted) - 1)
    return Hits((ranked >= 0) & (wanted[places] == pairs), counts)


def recall_at_k(hits: Hits, k: int) -> Scores:
    """Return the share of the relevant items that are among the first k (U,).

    trec_eval's ``recall_k``: divided by all relevant items, also where they outnumber k.
    """
    found: Scores = hits.first(k).sum(axis=1) / hits.counts
    return found


def hit_rate_at_k(hits: Hits, k: int) -> Scores:
    """Return 1 where any of the first k is relevant, else 0 (U,); trec_eval's ``success_k``."""
    return np.asarray(hits.first(k).any(axis=1), dtype=np.float64)


def precision_at_k(hits: Hits, k: int) -> Scores:
    """Return the share of the k ranks that hold a relevant item (U,).

    trec_eval's ``P_k``: divided by k, also where fewer than k items were ranked.
    """
    found: Scores = hits.first(k).sum(axis=1) / k
    return found


def ndcg_at_k(hits: Hits, k: int) -> Scores:
    """Return the normalised discounted cumulative gain of the first k (U,).

    trec_eval's ``ndcg_cut_k`` (Järvelin and Kekäläinen, 2002) with binary gains and the discount
    1 / log2(1 + rank); the ideal ranking begins with min(k, number of relevant) relevant items.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))  # (k,)
    ideal = np.cumsum(discounts)[np.minimum(hits.counts, k) - 1]
    # Clipped because two orders of the same additions may differ in the last bit.
    gains: Scores = np.minimum(hits.first(k) @ discounts / ideal, 1.0)
    return gains


def mrr_at_k(hits: Hits, k: int) -> Scores:
    """Return 1 / the rank of the first relevant item, 0 without one among the first k (U,)."""
    found = hits.first(k)
    reciprocal: Scores = np.where(found.any(axis=1), 1.0 / (1.0 + found.argmax(axis=1)), 0.0)
    return reciprocal


def average_precision_at_k(hits: Hits, k: int) -> Scores:
    """Return the mean over the relevant items of the precision at their rank (U,).

    trec_eval's ``map_cut_k``: an item beyond k adds 0, and the sum is divided by all relevant
    items, not by min(k, number of relevant).
    """
    found = hits.first(k)
    precisions = np.cumsum(found, axis=1) / np.arange(1, k + 1)
    mean: Scores = (precisions * found).sum(axis=1) / hits.counts
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
    rows, shown = ranked[:, :k], np.zeros(len(candidates), dtype=np.bool_)
    shown[rows[rows >= 0]] = True
    return float((shown & candidates).sum() / candidates.sum())


METRICS: Mapping[str, Metric] = {
    "ndcg": ndcg_at_k,
    "recall": recall_at_k,
    "hit_rate": hit_rate_at_k,
    "precision": precision_at_k,
    "mrr": mrr_at_k,
    "average_precision": average_precision_at_k,
}


def _check_k(ranked: NDArray[Any], k: int) -> None:
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


def _check_rows(ranked: Ints, right: Ints) -> None:
    if right.min() < 0 or ranked.min(initial=0) < -1:
        raise InvalidArgumentError(
            "item rows must be >= 0 (-1 pads ranked rows), got a negative one"
        )
    ordered = np.sort(ranked, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise InvalidArgumentError("ranked must name each item once per user, got a repeated one")
