"""What systems show, right or wrong: how novel, diverse and popular it is, and where it goes.

The functions take ``ranked``, item rows, best first, int64 (U, K), where -1 pads, and ``k``, the
number of ranks that count. They return one number per user, float64 (U,), NaN for a user who is
shown too little to say; ``mean_of`` is the mean over the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Doubles, Floats, Ints
from recsys.evaluation.bootstrap import Estimate, estimate, estimates

USERS_AT_ONCE = 2_048


def novelty(ranked: Ints, buyers: Doubles, n_users: int, k: int) -> Doubles:
    """Return the mean self-information of the first k items, in bits (U,).

    The self-information of an item is -log2 of the share of users who took it (Zhou et al., 2010,
    https://doi.org/10.1073/pnas.1000488107). An item that nobody took counts as taken by one.
    """
    bits = -np.log2(np.maximum(buyers, 1) / max(n_users, 1))
    return _mean_over_shown(ranked[:, :k], bits)


def popularity(ranked: Ints, percentiles: Doubles, k: int) -> Doubles:
    """Return the mean popularity percentile of the first k items, from 0 to 1 (U,).

    Args:
        ranked: Item rows; see the module.
        percentiles: Result of ``popularity_percentiles``.
        k: Number of ranks that count.
    """
    return _mean_over_shown(ranked[:, :k], percentiles)


def popularity_percentiles(buyers: Doubles, candidates: NDArray[np.bool_]) -> Doubles:
    """Return the share of candidates that are less popular than each item (N,); ties count half."""
    pool = np.sort(buyers[candidates])
    below, up_to = np.searchsorted(pool, buyers, "left"), np.searchsorted(pool, buyers, "right")
    return (below + up_to) / (2 * max(len(pool), 1))


def diversity(ranked: Ints, embeddings: Floats, k: int) -> Doubles:
    """Return 1 - the mean cosine of the pairs among the first k items (U,).

    The intra-list diversity of Ziegler et al. (2005, https://doi.org/10.1145/1060745.1060754) with
    the distance of the embeddings. Items without an embedding do not count.
    """
    found = np.full(len(ranked), np.nan)
    for start in range(0, len(ranked), USERS_AT_ONCE):
        top = ranked[start : start + USERS_AT_ONCE, :k]
        shown = np.where((top >= 0)[..., None], embeddings[top], 0.0).astype(
            np.float64
        )  # (B, k, D)
        lengths = np.linalg.norm(shown, axis=2, keepdims=True)
        shown /= np.where(lengths > 0, lengths, 1.0)
        counts = (lengths > 0).sum(axis=(1, 2))
        # The square of a sum of unit vectors has each pair twice, and 1 for each vector.
        pairs = (shown.sum(axis=1) ** 2).sum(axis=1) - counts
        several = counts > 1
        cosines = pairs[several] / (counts * (counts - 1))[several]
        found[start : start + USERS_AT_ONCE][several] = 1.0 - cosines
    return found


def gini(ranked: Ints, candidates: NDArray[np.bool_], k: int) -> float:
    """Return how unequally the candidates are shown, from 0 (all alike) to almost 1 (one alone).

    The Gini coefficient of how often each candidate is among the first k (Fleder and Hosanagar,
    2009, https://doi.org/10.1287/mnsc.1080.0974). It is 0 where nothing is shown.
    """
    top = ranked[:, :k]
    times = np.bincount(top[top >= 0], minlength=len(candidates))[candidates]
    n, total = len(times), times.sum()
    if not total:
        return 0.0
    ranks = np.arange(1, n + 1)
    return float(((2 * ranks - n - 1) * np.sort(times)).sum() / (n * total))


def shares(rows: Ints, labels: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Return what share of the item rows has each label; rows of -1 do not count.

    Args:
        rows: Item rows of any shape.
        labels: Label of every item (N,).
        names: Labels to count.
    """
    places = {name: place for place, name in enumerate(names)}
    codes = np.array([places[label] for label in labels], dtype=np.int64)
    counts = np.bincount(codes[rows[rows >= 0]], minlength=len(names))
    return dict(zip(names, (counts / max(counts.sum(), 1)).tolist(), strict=True))


def gap(shown: Mapping[str, float], taken: Mapping[str, float]) -> float:
    """Return how far apart two divisions into shares are, from 0 (alike) to 1 (nothing shared).

    The total variation distance. By chance alone it is above 0 where users are few.

    Args:
        shown: Share of each label among what is shown; see ``shares``.
        taken: Share of the same labels among what users took.
    """
    return sum(abs(shown[name] - taken[name]) for name in taken) / 2


def mean_of(values: Doubles) -> Estimate | None:
    """Return the mean over the users who have a number, None where nobody has one."""
    known = values[~np.isnan(values)]
    return estimate(known) if len(known) else None


def means_of(columns: Sequence[Doubles]) -> list[Estimate | None]:
    """Return ``mean_of`` each column; those without NaN are resampled together, which is faster."""
    complete = [values for values in columns if not np.isnan(values).any()]
    means = iter(estimates(np.stack(complete, axis=1)) if complete else ())
    return [mean_of(values) if np.isnan(values).any() else next(means) for values in columns]


def _mean_over_shown(top: Ints, values: Doubles) -> Doubles:
    shown = top >= 0
    counts = shown.sum(axis=1)
    sums = np.where(shown, values[top], 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
