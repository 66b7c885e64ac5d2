"""Category paths: probabilities whose levels agree, and one path for every picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vision.arrays import Doubles, Ints
from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError

SEPARATOR = " > "
# A softmax may underflow to 0, which cannot be divided by.
FLOOR = 1e-30

Floating = TypeVar("Floating", np.float32, np.float64)


class CategoryPath(NamedTuple):
    """Targets that are levels of one hierarchy, such as "Fruit" and "Fruit > Apple"."""

    targets: tuple[str, ...]  # from coarse to fine, at least two
    parents: tuple[Ints, ...]  # for each finer level, the parent (C,) of each of its classes


def find_category_paths(classes: Mapping[str, Sequence[str]]) -> tuple[CategoryPath, ...]:
    """Return the category paths among the targets, which follow from the names of their classes.

    A target is a finer level of another target if each of its class names continues a class name
    of the other: "Fruit > Apple" continues "Fruit". A path ends early at a class that no finer
    class continues.

    Args:
        classes: Class names of every target, in any order.
    """
    paths: list[CategoryPath] = []
    # The shortest name of a finer level has more parts, so this order is from coarse to fine.
    for target in sorted(classes, key=lambda name: _shortest(classes[name])):
        for position, path in enumerate(paths):
            parents = _find_parents(classes[path.targets[-1]], classes[target])
            if parents is not None:
                paths[position] = CategoryPath((*path.targets, target), (*path.parents, parents))
                break
        else:
            paths.append(CategoryPath((target,), ()))
    return tuple(path for path in paths if path.parents)


def reconcile_levels(
    probabilities: Mapping[str, NDArray[Floating]], paths: Sequence[CategoryPath]
) -> dict[str, NDArray[Floating]]:
    """Return probabilities (n, C) in which every class has the sum of its subclasses.

    Each level has a head of its own, and heads may contradict each other. The result is the
    distribution over whole paths that is closest to all heads: it minimises the sum over levels of
    the Kullback-Leibler divergence from its marginal to the head. This is a logarithmic opinion
    pool (Genest and Zidek, 1986, https://doi.org/10.1214/ss/1177013825) between levels. A head
    alone decides how a class is divided into its subclasses, and has one vote on every level
    above. A product of the heads (Hinton, 2002) would count the same evidence twice, while here
    heads that agree stay as they are.

    A class at which a path ends early keeps the probability from its own head. The finer levels
    then sum to less than 1, and the rest is the probability of such an early end.

    Args:
        probabilities: Class probabilities (n, C) of every target, as returned by
            ``VisionTower.predict_proba``. Targets outside all paths are returned unchanged.
        paths: Result of ``find_category_paths`` for the same classes.

    Raises:
        InvalidArgumentError: If the targets or classes of the probabilities and paths differ.
    """
    result = dict(probabilities)
    for path in paths:
        _check(probabilities, path)
        levels = [probabilities[target].astype(np.float64) for target in path.targets]
        for target, pooled in zip(path.targets, _pool(levels, path.parents), strict=True):
            result[target] = pooled.astype(probabilities[target].dtype)
    return result


def choose_classes(
    probabilities: Mapping[str, NDArray[Floating]], paths: Sequence[CategoryPath]
) -> dict[str, Ints]:
    """Return the predicted class of every target, int64 (n,), such that levels form one path.

    The chosen path has the largest expected number of correct levels, which is the sum of the
    probabilities of its classes. The most probable leaf alone may lie in an improbable class with
    few subclasses, and the most probable class may have only improbable subclasses. The sum
    balances the two mistakes. Levels below an early end are -1, and count as correct if the end is.

    Args:
        probabilities: Class probabilities (n, C) of every target, from ``reconcile_levels``.
        paths: Result of ``find_category_paths`` for the same classes.

    Raises:
        InvalidArgumentError: If the targets or classes of the probabilities and paths differ.
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


def _find_parents(coarse: Sequence[str], fine: Sequence[str]) -> Ints | None:
    """Return the coarse class (C,) that each fine class continues, or None if one has no parent."""
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
            f"probabilities must have all targets of the path {path.targets}, {missing} are missing"
        )
    for target, parents in zip(path.targets[1:], path.parents, strict=True):
        if probabilities[target].shape[1:] != parents.shape:
            raise InvalidArgumentError(
                f"probabilities[{target!r}] must have shape (n, {len(parents)}), the number of "
                f"classes in the path, got {probabilities[target].shape}"
            )


def _pool(levels: Sequence[Doubles], parents: Sequence[Ints]) -> list[Doubles]:
    """Return probabilities (n, C) that agree across levels, pooled from the finest level up."""
    coarse = np.maximum(levels[0], FLOOR)
    if not parents:
        return [coarse / coarse.sum(axis=1, keepdims=True)]
    finer = _pool(levels[1:], parents[1:])
    inherited = np.zeros_like(coarse)  # sum of the subclasses of each class
    np.add.at(inherited.T, parents[0], finer[0].T)
    divided = np.isin(np.arange(coarse.shape[1]), parents[0])
    # One vote for this head, and one for each of the finer heads that were pooled already.
    vote = 1.0 / len(levels)
    pooled = np.where(divided, coarse**vote * inherited ** (1.0 - vote), 0.0)
    pooled *= (coarse * divided).sum(axis=1, keepdims=True) / pooled.sum(axis=1, keepdims=True)
    agreed = [np.where(divided, pooled, coarse)]
    factor = pooled / np.maximum(inherited, FLOOR)
    for level, above in zip(finer, parents, strict=True):
        factor = factor[:, above]
        agreed.append(level * factor)
    return agreed


def _leaves(parents: Sequence[Ints], counts: Sequence[int]) -> Ints:
    """Return the class at every level of each whole path (levels, leaves), -1 below its end."""
    leaves = np.arange(counts[-1])[None]
    for above, count in zip(reversed(parents), reversed(counts[:-1]), strict=True):
        leaves = np.vstack([above[leaves[0]], leaves])
        ended = np.setdiff1d(np.arange(count), above)
        early = np.full((len(leaves), len(ended)), UNKNOWN)
        early[0] = ended
        leaves = np.hstack([leaves, early])
    return leaves
