"""From the scores of a whole catalogue to each user's best items, and to the area under the curve.

Users are looked at one by one, so that a block of them needs no more memory than its scores.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Floats, Ints
from recsys.errors import InvalidArgumentError

OUT = np.float32(-np.inf)  # score of an item that is not recommended
GROUP = 64  # items of which only the best score is looked at first


def allowed_rows(
    scores: Floats,
    *,
    excluded: Sequence[Ints],
    candidates: NDArray[np.bool_],
    positions: Ints | None = None,
) -> Iterator[Floats]:
    """Yield each user's scores (N,), with minus infinity for items that are not to be ranked.

    All of them are one array, which is overwritten for the next user: to fill new memory takes
    longer than to rank what is in it.

    Args:
        scores: Higher is better, (B, N).
        excluded: Per user, item rows to keep out.
        candidates: Which items may be ranked, bool (N,).
        positions: Row of ``scores`` of each user; None if each has their own.

    Raises:
        InvalidArgumentError: If the shapes disagree, or a score is not float32, NaN or plus
            infinity.
    """
    n_users = len(scores) if positions is not None else len(excluded)
    if scores.dtype != np.float32:
        raise InvalidArgumentError(f"scores must be float32, got {scores.dtype}")
    if scores.shape != (n_users, len(candidates)):
        raise InvalidArgumentError(
            f"scores must have shape {(n_users, len(candidates))} (users, catalogue), "
            f"got {scores.shape}"
        )
    # The maximum of an array with a NaN is NaN, which is not below anything.
    if not scores.max(initial=OUT) < np.inf:
        raise InvalidArgumentError(
            "scores must be finite or minus infinity, got NaN or plus infinity"
        )
    row, outside = np.empty(len(candidates), dtype=np.float32), np.flatnonzero(~candidates)
    positions = np.arange(n_users) if positions is None else positions
    for position, out in zip(positions, excluded, strict=True):
        row[:] = scores[position]
        row[outside] = OUT
        row[out] = OUT
        yield row


class TieOrder(NamedTuple):
    """The order in which one user's equal scores are ranked, by numbers that are as good as random.

    A system that scores all items alike is then as good as chance, not as good as the catalogue's
    order. Each user has an order of their own: otherwise all would be shown the same tied items,
    which are lucky or unlucky together, and no interval over users would show that.

    Args:
        numbers: A random number for each item, uint64 (N,).
        key: A random number for the user.
    """

    numbers: NDArray[np.uint64]
    key: np.uint64

    def places(self, rows: Ints) -> NDArray[np.uint64]:
        """Return a number for each item row; lower ones come first."""
        mixed = self.numbers[rows] ^ self.key
        for factor in _FACTORS:  # the steps of splitmix64 (Steele et al., 2014)
            mixed *= factor
            mixed ^= mixed >> np.uint64(31)
        return mixed


_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_PLACES = 2**64


def tie_numbers(
    n_items: int, n_users: int, seed: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return a random number for each item (N,) and user (U,), of which orders of ties are made."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(0, _PLACES, size=n_items, dtype=np.uint64)
    keys = generator.integers(0, _PLACES, size=n_users, dtype=np.uint64)
    return numbers, keys


def best_rows(scores: Floats, k: int, order: TieOrder) -> Ints:
    """Return the item rows of one user's k best scores, best first; fewer where fewer are allowed.

    Args:
        scores: Higher is better, (N,); minus infinity keeps an item out.
        k: Length of the ranking, at least 1.
        order: Order of equal scores.
    """
    if not len(scores):
        return np.empty(0, dtype=np.int64)
    # Groups are columns of this table, whose maximum costs a tenth of that of neighbours. The k
    # best groups have k items of at least the bar, and only they have items above it.
    whole = len(scores) // GROUP * GROUP
    tops = np.append(scores[:whole].reshape(GROUP, -1).max(axis=0), scores[whole:])
    split = len(tops) - k
    bar = np.partition(tops, split)[split] if split >= 0 else OUT
    best = np.flatnonzero(scores > bar)
    if len(best) < k and bar > OUT:
        best = np.append(best, _first_tied(scores, bar, k - len(best), order))
    return best[np.lexsort((order.places(best), -scores[best]))][:k]


def _first_tied(scores: Floats, bar: np.float32, count: int, order: TieOrder) -> Ints:
    """Return the first ``count`` items, as ties are ordered, of those whose score is ``bar``."""
    tied = np.flatnonzero(scores == bar)
    places = order.places(tied)
    if len(tied) > 16 * count:  # to sort those of the lowest numbers is enough
        near = places < np.uint64(8 * count * (_PLACES // len(tied)))
        if np.count_nonzero(near) >= count:
            tied, places = tied[near], places[near]
    return tied[np.argsort(places)[:count]]


def area_under_curve(scores: Floats, relevant: Ints, n_allowed: int) -> float:
    """Return one user's area under the ROC curve over all allowed items.

    It is the share of the pairs of a right and another item in which the right one has the higher
    score (Rendle et al., 2009, https://arxiv.org/abs/1205.2618); a tie counts half. Items with a
    score of minus infinity are tied below all others. Where every item is right, it is 0.5.

    Args:
        scores: Scores of ``allowed_rows`` (N,).
        relevant: Distinct rows that are right.
        n_allowed: Number of items that are ranked for the user.
    """
    n_right, n_other = len(relevant), n_allowed - len(relevant)
    if not n_right or not n_other:
        return 0.5
    behind = 0.0
    for score in scores[relevant]:
        above = np.count_nonzero(scores > score)
        # To compare with >= is faster than with ==.
        tied = (n_allowed if score == OUT else np.count_nonzero(scores >= score)) - above
        behind += n_allowed - above - tied + (tied - 1) / 2
    # Among themselves the right items have n (n - 1) / 2 pairs, whatever their scores.
    return (behind - n_right * (n_right - 1) / 2) / (n_right * n_other)
