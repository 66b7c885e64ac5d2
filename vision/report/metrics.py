"""Accuracy, macro-F1 and confusions, computed from one table of (label, prediction) counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from vision.arrays import Bools, Doubles, Ints
from vision.hierarchy import SEPARATOR
from vision.report.results import Cell, ClassResult, ConfusedPair, Estimate


class Confusion(NamedTuple):
    """The entries of a confusion matrix above zero: K pairs of label and prediction."""

    labels: Ints  # (K,)
    predicted: Ints  # (K,)
    counts: Ints  # number of pictures with each pair, (K,)
    n_classes: int  # C

    @property
    def n_pictures(self) -> int:
        """Number of pictures in all pairs."""
        return int(self.counts.sum())

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The pairs as plain values, sorted by label and then by prediction."""
        columns = (self.labels.tolist(), self.predicted.tolist(), self.counts.tolist())
        return tuple(Cell(*pair) for pair in zip(*columns, strict=True))


class _ClassCounts(NamedTuple):
    right: Doubles  # (R, C)
    predicted: Doubles  # (R, C)
    support: Doubles  # (R, C)


def count_confusion(labels: Ints, predicted: Ints, n_classes: int) -> Confusion:
    """Return the number of pictures with each pair of label and prediction.

    Args:
        labels: Correct classes (n,), all known, n >= 1.
        predicted: Predicted classes (n,).
        n_classes: Number of classes C.
    """
    pairs, counts = np.unique(labels * n_classes + predicted, return_counts=True)
    return Confusion(pairs // n_classes, pairs % n_classes, counts, n_classes)


def accuracy_and_macro_f1(
    confusion: Confusion, *, resamples: int = 1_000, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Return accuracy and macro-F1 with 95 % percentile bootstrap intervals (Efron, 1979).

    Macro-F1 is the mean F1 of the classes that have pictures, like scikit-learn's ``f1_score`` with
    ``labels`` set to these classes. In a resample it is the mean over the classes drawn, so its
    interval is shifted upwards if many classes have few pictures.

    Args:
        confusion: Counts of at least one picture.
        resamples: Number of bootstrap resamples of the pictures.
        seed: Random seed of the resamples.
    """
    n = confusion.n_pictures
    # Both metrics depend only on how often each pair is drawn, so a resample is one multinomial
    # draw, which is much smaller than n draws of pictures.
    drawn = np.random.default_rng(seed).multinomial(n, confusion.counts / n, size=resamples)
    means = _scores(confusion, confusion.counts[None])[0]  # (2,)
    low, high = np.quantile(_scores(confusion, drawn), [0.025, 0.975], axis=0)
    accuracy, macro_f1 = (
        Estimate(float(m), float(a), float(b)) for m, a, b in zip(means, low, high, strict=True)
    )
    return accuracy, macro_f1


def class_results(confusion: Confusion, classes: Sequence[str]) -> tuple[ClassResult, ...]:
    """Return precision, recall and F1 of all classes with pictures, the most frequent first.

    Args:
        confusion: Counts of all pairs.
        classes: Class names (C).
    """
    right, predicted, support = (
        part[0] for part in _class_counts(confusion, confusion.counts[None])
    )
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(predicted + support, 1)
    present = [row for row in np.argsort(-support, kind="stable").tolist() if support[row] > 0]
    return tuple(
        ClassResult(
            name=classes[row],
            precision=float(precision[row]),
            recall=float(recall[row]),
            f1=float(f1[row]),
            support=int(support[row]),
        )
        for row in present
    )


def sibling_mistakes(confusion: Confusion, classes: Sequence[str]) -> Confusion:
    """Return the pairs in which the prediction is a sibling of the correct class.

    Siblings are paths with the same parent ("Fruit > Apple" and "Fruit > Pear"). Names without a
    parent are all siblings of each other.

    Args:
        confusion: Counts of all pairs.
        classes: Class names (C).
    """
    parent_names = [name.rpartition(SEPARATOR)[0] for name in classes]
    _, parents = np.unique(parent_names, return_inverse=True)
    wrong = confusion.labels != confusion.predicted
    kept = wrong & (parents[confusion.labels] == parents[confusion.predicted])
    return Confusion(
        confusion.labels[kept], confusion.predicted[kept], confusion.counts[kept], len(classes)
    )


def confused_pairs(
    confusion: Confusion, classes: Sequence[str], *, limit: int = 15
) -> tuple[ConfusedPair, ...]:
    """Return the siblings that are most often confused, in either direction, most often first.

    Args:
        confusion: Counts of all pairs.
        classes: Class names (C).
        limit: Largest number of pairs returned.
    """
    wrong = sibling_mistakes(confusion, classes)
    first, second = np.minimum(wrong.labels, wrong.predicted), np.maximum(*wrong[:2])
    # Both directions add to one cell above the diagonal.
    pairs, positions = np.unique(first * len(classes) + second, return_inverse=True)
    counts = np.bincount(positions, weights=wrong.counts, minlength=len(pairs))
    support = np.bincount(confusion.labels, weights=confusion.counts, minlength=len(classes))
    found = []
    for row in np.argsort(-counts, kind="stable")[:limit]:
        a, b = divmod(int(pairs[row]), len(classes))
        share = float(counts[row] / (support[a] + support[b]))
        found.append(ConfusedPair(classes[a], classes[b], int(counts[row]), share))
    return tuple(found)


def _scores(confusion: Confusion, counts: Ints) -> Doubles:
    """Return accuracy and macro-F1 (R, 2) of each row of counts (R, K)."""
    right, predicted, support = _class_counts(confusion, counts)
    f1 = 2 * right / np.maximum(predicted + support, 1)
    present = support > 0
    macro_f1 = (f1 * present).sum(axis=1) / present.sum(axis=1)
    return np.stack([right.sum(axis=1) / support.sum(axis=1), macro_f1], axis=1)


def _class_counts(confusion: Confusion, counts: Ints) -> _ClassCounts:
    """Return correct, predicted and actual pictures of each class for each row of counts (R, K)."""

    def per_class(column: Ints, weights: Bools | Doubles) -> Doubles:
        entries = (weights.astype(np.float64), (np.arange(len(column)), column))
        summed: Doubles = counts @ csr_array(entries, shape=(len(column), confusion.n_classes))
        return summed

    labels, predicted = confusion.labels, confusion.predicted
    ones = np.ones(len(labels))
    return _ClassCounts(
        right=per_class(labels, labels == predicted),
        predicted=per_class(predicted, ones),
        support=per_class(labels, ones),
    )
