"""Active learning: the pictures whose labels would teach a tower most, as a table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import entr

from vision.dataset import Rejected
from vision.errors import InvalidArgumentError
from vision.labelling.readable import Readable
from vision.tower import VisionTower

Strategy = Literal["entropy", "margin", "core_set", "random"]


class Selection(NamedTuple):
    """The pictures to label next, and those that could not be considered."""

    table: pl.DataFrame  # rank, image, strategy, score, predicted, probability
    rejected: tuple[Rejected, ...]  # of pool and labelled, could not be read


class Centres(NamedTuple):
    """Rows chosen to cover all others, in the order of their choice."""

    rows: NDArray[np.int64]  # (k,)
    distances: NDArray[np.float64]  # (k,), to the nearest centre chosen before; inf where none was


def select(
    tower: VisionTower,
    pool: Sequence[Path],
    k: int,
    *,
    strategy: Strategy,
    labelled: Sequence[Path] = (),
    root: Path | None = None,
    target: str | None = None,
    seed: int,
) -> Selection:
    """Return the k pictures of the pool to label next, the most wanted first.

    ``entropy`` and ``margin`` ask where the tower is unsure, and may ask k times for the same
    picture; ``core_set`` covers the pool, and sees only how pictures look; ``random`` is what they
    have to beat. Settles (2009, https://burrsettles.com/pub/settles.activelearning.pdf) compares.

    Args:
        tower: Trained on what is labelled so far.
        pool: Pictures without a label; unreadable ones are left out and reported.
        k: How many to choose.
        strategy: What makes a picture worth a label; the score is that of the function of the
            same name, a uniform draw for random, and for core_set the distance to the nearest
            picture labelled or ranked before, which is infinite where there is none.
        labelled: Pictures that core_set need not cover again.
        root: Folder that every picture must be in; pool and labelled are then relative to it.
        target: Target that entropy and margin look at, and whose predicted class is reported; the
            last one if unset.
        seed: Seed of random.

    Raises:
        InvalidArgumentError: If there are fewer than k readable pictures, or no such target or
            strategy.
    """
    target = _check(tower, k, strategy, target)
    pictures = Readable(pool, root, tower.preprocess)
    covered = Readable(labelled, root, tower.preprocess)  # read by core_set alone
    _check_enough(k, len(pool), "pictures in the pool")
    if strategy == "core_set":
        centres = tower.embed(covered)
        embeddings = tower.embed(pictures)
        _check_enough(k, len(embeddings), "readable pictures in the pool")
        chosen, scores = k_centre(embeddings, k, centres)
    else:
        ranked = _SCORES[strategy](tower.predict(pictures)[target], seed)
        _check_enough(k, len(ranked), "readable pictures in the pool")
        chosen = np.argsort(-ranked, kind="stable")[:k]
        scores = ranked[chosen]
    files = [pool[pictures.rows[row]] for row in chosen]
    probabilities = tower.predict(Readable(files, root, tower.preprocess))[target]
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


def entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the entropy in nats of each row of class probabilities (n, C), (n,)."""
    own: NDArray[np.float64] = entr(probabilities.astype(np.float64)).sum(axis=1)
    return own


def margin(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return one minus the lead of each row's first class over its second, (n,).

    Scheffer et al. (2001, https://doi.org/10.1007/3-540-44816-0_31) ask for the smallest lead;
    taken from one, it is larger where the tower is less sure, as entropy is.

    Args:
        probabilities: (n, C), of at least two classes.
    """
    if probabilities.shape[1] < 2:
        raise InvalidArgumentError(f"margin needs at least 2 classes, got {probabilities.shape[1]}")
    second, first = np.partition(probabilities.astype(np.float64), [-2, -1], axis=1)[:, -2:].T
    unsure: NDArray[np.float64] = 1.0 - (first - second)
    return unsure


def k_centre(embeddings: NDArray[np.floating], k: int, covered: NDArray[np.floating]) -> Centres:
    """Return k rows that lie near all others, each the farthest from those before it.

    The greedy core-set of Sener and Savarese (2018, https://arxiv.org/abs/1708.00489), after which
    no row is more than twice as far from a centre as with the best k; without their integer
    programme that goes on from there and sets outliers aside. With nothing covered, the row nearest
    to the mean is the first. Takes O((k + m) n D) time and O(n D) memory.

    Args:
        embeddings: (n, D).
        k: How many, at most n.
        covered: Embeddings that are centres already, (m, D).
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
        # At distance 0 it would tie with its own duplicates and could be chosen again.
        nearest[row] = -np.inf
    return Centres(np.array(rows, dtype=np.int64), np.array(distances, dtype=np.float64))


def _distances(
    embeddings: NDArray[np.floating], centre: NDArray[np.floating]
) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(embeddings - centre, axis=1).astype(np.float64)
    return lengths


_Scorer = Callable[[NDArray[np.float32], int], NDArray[np.float64]]

_SCORES: dict[str, _Scorer] = {
    "entropy": lambda rows, seed: entropy(rows),
    "margin": lambda rows, seed: margin(rows),
    "random": lambda rows, seed: np.random.default_rng(seed).random(len(rows)),
}


def _check(tower: VisionTower, k: int, strategy: str, target: str | None) -> str:
    """Return the target that is looked at, once the arguments are known to be sound."""
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
