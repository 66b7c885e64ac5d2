"""Accuracy on groups of pictures, which shows weaknesses that an average hides."""

import sys
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from vision.arrays import Bools, Ints
from vision.report.results import Estimate, Slice

FREQUENCY = "pictures of the class"
_FREQUENCIES = {"1 to 4": 4, "5 to 19": 19, "20 to 99": 99, "100 or more": sys.maxsize}


def accuracy_by_group(right: Bools, groups: Sequence[str], grouping: str) -> tuple[Slice, ...]:
    """Return the accuracy in every group, sorted by the name of the group.

    The interval is Wilson's (1927), because a bootstrap interval of three correct predictions would
    have no width.

    Args:
        right: Whether each prediction is correct (n,).
        groups: Group of each picture (n).
        grouping: Name of the grouping, such as ``store``.
    """
    names, positions = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    totals = np.bincount(positions, minlength=len(names)).tolist()
    rights = np.bincount(positions[right], minlength=len(names)).tolist()
    return tuple(
        Slice(grouping, str(name), total, _wilson(count, total))
        for name, count, total in zip(names, rights, totals, strict=True)
    )


def accuracy_by_frequency(right: Bools, labels: Ints) -> tuple[Slice, ...]:
    """Return the accuracy on classes with few, some and many pictures among these.

    Args:
        right: Whether each prediction is correct (n,).
        labels: Correct classes (n,).
    """
    names, most = list(_FREQUENCIES), list(_FREQUENCIES.values())
    groups = [names[np.searchsorted(most, count)] for count in np.bincount(labels)[labels]]
    found = accuracy_by_group(right, groups, FREQUENCY)
    return tuple(sorted(found, key=lambda part: names.index(part.group)))


def _wilson(count: int, total: int) -> Estimate:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high))
