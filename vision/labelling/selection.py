"""Active learning: a table of the pictures whose labels would help a tower most."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import entr

from vision.arrays import Doubles, Floats, Ints
from vision.dataset import Rejected
from vision.errors import InvalidArgumentError
from vision.labelling.readable import Readable
from vision.tower import VisionTower

Strategy = Literal["entropy", "margin", "core_set", "random"]


@dataclass(frozen=True)
class Pool:
    """The pictures to choose from.

    Attributes:
        pictures: Pictures without a label, relative to root where root is given. Unreadable ones
            are left out and reported.
        labelled: Labelled pictures, which ``core_set`` counts as covered already.
        root: Folder that every picture must be in.
    """

    pictures: Sequence[Path]
    labelled: Sequence[Path] = ()
    root: Path | None = None


class Selection(NamedTuple):
    """The pictures to label next, and the pictures that could not be read."""

    table: pl.DataFrame  # rank, image, strategy, score, predicted, probability
    rejected: tuple[Rejected, ...]  # unreadable pictures of the pool


class Centres(NamedTuple):
    """Rows that cover all others, in the order in which they were chosen."""

    rows: Ints  # (k,)
    distances: Doubles  # (k,), to the nearest earlier centre, infinite if there was no centre


def select(
    tower: VisionTower,
    pool: Pool,
    k: int,
    *,
    strategy: Strategy,
    target: str | None = None,
    seed: int,
) -> Selection:
    """Return the k pictures of the pool that are best labelled next, the best one first.

    ``entropy`` and ``margin`` choose pictures that the tower is unsure about, which may all be
    alike. ``core_set`` chooses pictures that cover the pool, and depends on embeddings only.
    ``random`` is the baseline. Settles (2009,
    https://burrsettles.com/pub/settles.activelearning.pdf) compares such strategies.

    The score of a picture is the value of ``entropy`` or ``margin``, a uniform random number for
    ``random``, and for ``core_set`` the distance to the nearest picture that is labelled or ranked
    before, which is infinite for the first one if nothing is labelled.

    Args:
        tower: Tower that was trained on the pictures labelled so far.
        pool: Pictures to choose from.
        k: Number of pictures to choose.
        strategy: Name of the strategy.
        target: Target that ``entropy`` and ``margin`` use and that the table reports. None is the
            last target.
        seed: Random seed for ``random``.

    Raises:
        InvalidArgumentError: If the pool has fewer than k readable pictures, or the target or
            strategy is unknown.
    """
    target = _check(tower, k, strategy, target)
    _check_enough(k, len(pool.pictures), "pictures in the pool")
    pictures = Readable(pool.pictures, pool.root, tower.preprocess)
    covered = Readable(pool.labelled, pool.root, tower.preprocess)
    if strategy == "core_set":
        centres = tower.embed(covered)
        embeddings = tower.embed(pictures)
        _check_enough(k, len(embeddings), "readable pictures in the pool")
        chosen, scores = k_centre(embeddings, k, centres)
    else:
        ranked = _SCORES[strategy](tower.predict_proba(pictures)[target], seed)
        _check_enough(k, len(ranked), "readable pictures in the pool")
        chosen = np.argsort(-ranked, kind="stable")[:k]
        scores = ranked[chosen]
    files = [pool.pictures[pictures.rows[row]] for row in chosen]
    probabilities = tower.predict_proba(Readable(files, pool.root, tower.preprocess))[target]
    names = [tower.classes[target][column] for column in probabilities.argmax(axis=1)]
    table = pl.DataFrame(
        {
            "rank": np.arange(1, k + 1),
            "image": [str(file) for file in files],
            "strategy": [strategy] * k,
            "score": scores,
            "predicted": names,
            "probability": probabilities.max(axis=1),
        }
    )
    return Selection(table, (*covered.rejected, *pictures.rejected))


def entropy(probabilities: NDArray[np.floating]) -> Doubles:
    """Return the entropy in nats (n,) of each row of class probabilities (n, C)."""
    entropies: Doubles = entr(probabilities.astype(np.float64)).sum(axis=1)
    return entropies


def margin(probabilities: NDArray[np.floating]) -> Doubles:
    """Return 1 minus the lead of the most probable class over the second, (n,).

    Scheffer et al. (2001, https://doi.org/10.1007/3-540-44816-0_31) choose the smallest lead. One
    minus the lead is large where the tower is unsure, as entropy is.

    Args:
        probabilities: Class probabilities (n, C), with at least two classes.

    Raises:
        InvalidArgumentError: If there are fewer than two classes.
    """
    if probabilities.shape[1] < 2:
        raise InvalidArgumentError(f"margin needs at least 2 classes, got {probabilities.shape[1]}")
    second, first = np.partition(probabilities.astype(np.float64), [-2, -1], axis=1)[:, -2:].T
    unsure: Doubles = 1.0 - (first - second)
    return unsure


def k_centre(embeddings: NDArray[np.floating], k: int, covered: NDArray[np.floating]) -> Centres:
    """Return k rows that cover all rows: each is the row farthest from all centres before it.

    This is the greedy core-set of Sener and Savarese (2018, https://arxiv.org/abs/1708.00489), in
    which no row is more than twice as far from a centre as with the best k centres. Their integer
    programme, which improves on it and ignores outliers, is left out. If nothing is covered yet,
    the first centre is the row nearest to the mean. Takes O((k + m) n D) time and O(n D) memory.

    Args:
        embeddings: Embeddings to choose from (n, D).
        k: Number of rows to choose, at most n.
        covered: Embeddings that are centres already (m, D).
    """
    nearest = np.full(len(embeddings), np.inf)
    for centre in covered:
        nearest = np.minimum(nearest, _distances(embeddings, centre))
    rows: list[int] = []
    distances: list[float] = []
    for _ in range(k):
        if rows or len(covered):
            row = int(nearest.argmax())
        else:
            row = int(_distances(embeddings, embeddings.mean(axis=0)).argmin())
        rows.append(row)
        distances.append(nearest[row])
        nearest = np.minimum(nearest, _distances(embeddings, embeddings[row]))
        # At distance 0 the row would tie with its own duplicates and could be chosen again.
        nearest[row] = -np.inf
    return Centres(np.array(rows, dtype=np.int64), np.array(distances, dtype=np.float64))


def _distances(embeddings: NDArray[np.floating], centre: NDArray[np.floating]) -> Doubles:
    lengths: Doubles = np.linalg.norm(embeddings - centre, axis=1).astype(np.float64)
    return lengths


_Scorer = Callable[[Floats, int], Doubles]

_SCORES: dict[str, _Scorer] = {
    "entropy": lambda rows, seed: entropy(rows),
    "margin": lambda rows, seed: margin(rows),
    "random": lambda rows, seed: np.random.default_rng(seed).random(len(rows)),
}


def _check(tower: VisionTower, k: int, strategy: str, target: str | None) -> str:
    """Return the target to use, after checking the arguments."""
    strategies = (*_SCORES, "core_set")
    if strategy not in strategies:
        raise InvalidArgumentError(
            f"strategy must be one of {', '.join(strategies)}, got {strategy!r}"
        )
    names = tuple(tower.classes)
    if not names or (target is not None and target not in names):
        raise InvalidArgumentError(
            f"target must be one of {', '.join(names) or '(none)'}, got {target!r}"
        )
    if k < 1:
        raise InvalidArgumentError(f"k must be at least 1, got {k}")
    return names[-1] if target is None else target


def _check_enough(k: int, available: int, what: str) -> None:
    if k > available:
        raise InvalidArgumentError(f"k must be at most {available} ({what}), got {k}")
