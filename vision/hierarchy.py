"""Categories that are levels of one path: probabilities that agree, and one path per picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError

SEPARATOR = " > "
# A softmax may underflow to 0, of which no share can be taken.
FLOOR = 1e-30

Floating = TypeVar("Floating", np.float32, np.float64)


class CategoryPath(NamedTuple):
    """Targets whose classes are parts of one another's."""

    targets: tuple[str, ...]  # from coarse to fine, at least two
    parents: tuple[NDArray[np.int64], ...]  # one fewer: class (C,) above each of the finer one's


def find_paths(classes: Mapping[str, Sequence[str]]) -> tuple[CategoryPath, ...]:
    """Return the category paths among the targets, found in the names of their classes.

    A target is a finer level of another when each of its names continues one of the other's:
    "Fruit > Apple" continues "Fruit". A class that none continues is where a path ends early.

    Args:
        classes: Class names of every target, in any order.
    """
    paths: list[CategoryPath] = []
    # A finer level's shortest name is longer than its coarser level's, so levels come in order.
    for target in sorted(classes, key=lambda name: _shortest(classes[name])):
        for position, path in enumerate(paths):
            parents = _find_parents(classes[path.targets[-1]], classes[target])
            if parents is not None:
                paths[position] = CategoryPath((*path.targets, target), (*path.parents, parents))
                break
        else:
            paths.append(CategoryPath((target,), ()))
    return tuple(path for path in paths if path.parents)


def consistent(
    probabilities: Mapping[str, NDArray[Floating]], paths: Sequence[CategoryPath]
) -> dict[str, NDArray[Floating]]:
    """Return probabilities (n, C) of every target where a class has the sum of its parts.

    Every level's head has an opinion. The answer is the distribution over whole paths that is
    closest to all of them: the sum over levels of the Kullback-Leibler divergence from its
    marginal to the head's is least. That is a logarithmic opinion pool (Genest and Zidek, 1986,
    https://doi.org/10.1214/ss/1177013825), here between levels: a head decides alone how a class is
    divided into its parts, and has one vote on all classes above. Unlike a product of the heads
    (Hinton, 2002), it does not count the same evidence twice: heads that agree are left as they
    are.

    A class where a path ends early keeps the probability that its own head gives it, as finer
    heads have no opinion on it; what finer levels lack to 1 is the probability of such an end.

    Args:
        probabilities: (n, C) of every target, as ``VisionTower.predict`` returns them; targets in
            no path come back as they are.
        paths: From ``find_paths``, of the same classes.

    Raises:
        InvalidArgumentError: If the probabilities are not of the paths' targets and classes.
    """
    result = dict(probabilities)
    for path in paths:
        _check(probabilities, path)
        levels = [probabilities[target].astype(np.float64) for target in path.targets]
        for target, pooled in zip(path.targets, _pool(levels, path.parents), strict=True):
            result[target] = pooled.astype(probabilities[target].dtype)
    return result


def decode(
    probabilities: Mapping[str, NDArray[Floating]], paths: Sequence[CategoryPath]
) -> dict[str, NDArray[np.int64]]:
    """Return the predicted class of every target, int64 (n,); along a path they fit together.

    Of all paths, the one with the most levels expected to be right: the sum of its classes'
    probabilities. The most probable leaf may lie in an improbable class that happens to have few
    parts, and the best part of the most probable class may be one of many that are all improbable;
    the sum weighs a wrong aisle against a wrong sort. Levels below an early end are -1, and right
    as often as the end is.

    Args:
        probabilities: (n, C) of every target, as ``consistent`` returns them.
        paths: From ``find_paths``, of the same classes.

    Raises:
        InvalidArgumentError: If the probabilities are not of the paths' targets and classes.
    """
    classes = {target: rows.argmax(axis=1) for target, rows in probabilities.items()}
    for path in paths:
        _check(probabilities, path)
        levels = [probabilities[target] for target in path.targets]
        leaves = _leaves(path.parents, [rows.shape[1] for rows in levels])
        own = levels[0][:, leaves[0]]  # (n, leaves)
        expected = own
        for rows, ancestors in zip(levels[1:], leaves[1:], strict=True):
            own = np.where(ancestors == UNKNOWN, own, rows[:, ancestors])
            expected = expected + own
        best = expected.argmax(axis=1)
        classes.update(zip(path.targets, leaves[:, best], strict=True))
    return classes


def _shortest(names: Sequence[str]) -> int:
    return min((name.count(SEPARATOR) for name in names), default=0)


def _find_parents(coarse: Sequence[str], fine: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the coarse class (C,) that each fine class continues, None unless all do."""
    index = {name: code for code, name in enumerate(coarse)}
    parents = []
    for name in fine:
        prefix = name.rpartition(SEPARATOR)[0]
        while prefix and prefix not in index:
            prefix = prefix.rpartition(SEPARATOR)[0]
        if not prefix:
            return None
        parents.append(index[prefix])
    return np.array(parents, dtype=np.int64) if parents else None


def _check(probabilities: Mapping[str, NDArray[Floating]], path: CategoryPath) -> None:
    missing = [target for target in path.targets if target not in probabilities]
    if missing:
        raise InvalidArgumentError(
            f"probabilities must have all targets of the path {path.targets}, {missing} missing"
        )
    for target, parents in zip(path.targets[1:], path.parents, strict=True):
        if probabilities[target].shape[1:] != parents.shape:
            raise InvalidArgumentError(
                f"probabilities[{target!r}] must have shape (n, {len(parents)}), as the path has "
                f"that many classes, got {probabilities[target].shape}"
            )


def _pool(
    levels: Sequence[NDArray[np.float64]], parents: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.float64]]:
    """Return the levels' probabilities (n, C) made to agree, from the finest up."""
    coarse = np.maximum(levels[0], FLOOR)
    if not parents:
        return [coarse / coarse.sum(axis=1, keepdims=True)]
    finer = _pool(levels[1:], parents[1:])
    inherited = np.zeros_like(coarse)  # what the parts of each class sum to
    np.add.at(inherited.T, parents[0], finer[0].T)
    divided = np.isin(np.arange(coarse.shape[1]), parents[0])
    # One vote for this head, one for each of those that the finer levels were pooled from.
    vote = 1.0 / len(levels)
    pooled = np.where(divided, coarse**vote * inherited ** (1.0 - vote), 0.0)
    pooled *= (coarse * divided).sum(axis=1, keepdims=True) / pooled.sum(axis=1, keepdims=True)
    agreed = [np.where(divided, pooled, coarse)]
    factor = pooled / np.maximum(inherited, FLOOR)
    for level, above in zip(finer, parents, strict=True):
        factor = factor[:, above]
        agreed.append(level * factor)
    return agreed


def _leaves(parents: Sequence[NDArray[np.int64]], counts: Sequence[int]) -> NDArray[np.int64]:
    """Return the class of every level above each end of a path, (levels, leaves); -1 below it."""
    leaves = np.arange(counts[-1])[None]
    for above, count in zip(reversed(parents), reversed(counts[:-1]), strict=True):
        leaves = np.vstack([above[leaves[0]], leaves])
        ended = np.setdiff1d(np.arange(count), above)
        early = np.full((len(leaves), len(ended)), UNKNOWN)
        early[0] = ended
        leaves = np.hstack([leaves, early])
    return leaves
