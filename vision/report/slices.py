"""Accuracy on groups of pictures: where an average hides a weakness."""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from vision.report.results import Estimate, Slice

FREQUENCY = "pictures of the class"
_FREQUENCIES = {"1 to 4": 4, "5 to 19": 19, "20 to 99": 99, "100 or more": sys.maxsize}


def accuracy_by_group(
    right: NDArray[np.bool_], groups: Sequence[str], grouping: str
) -> tuple[Slice, ...]:
    """Return the accuracy in every group, by the group's name.

    The interval is Wilson's (1927): a bootstrap of three right answers would have no width.

    Args:
        right: Which answers are right (n,).
        groups: The group of each (n).
        grouping: What they are grouped by.
    """
    names, positions = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    totals = np.bincount(positions, minlength=len(names)).tolist()
    rights = np.bincount(positions[right], minlength=len(names)).tolist()
    return tuple(
        Slice(grouping, str(name), total, _wilson(count, total))
        for name, count, total in zip(names, rights, totals, strict=True)
    )


def accuracy_by_frequency(right: NDArray[np.bool_], labels: NDArray[np.int64]) -> tuple[Slice, ...]:
    """Return the accuracy on classes with few pictures here, with more and with many.

    Args:
        right: Which answers are right (n,).
        labels: The right classes (n,).
    """
    names, most = list(_FREQUENCIES), list(_FREQUENCIES.values())
    groups = [names[np.searchsorted(most, count)] for count in np.bincount(labels)[labels]]
    found = accuracy_by_group(right, groups, FREQUENCY)
    return tuple(sorted(found, key=lambda one: names.index(one.group)))


def _wilson(count: int, total: int) -> Estimate:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high))
