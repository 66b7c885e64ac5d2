"""Accuracy, macro-F1 and confusions, all from one table of (label, prediction) counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from vision.report.results import Cell, ClassResult, ConfusedPair, Estimate

PATH_SEPARATOR = " > "

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Confusion(NamedTuple):
    """A confusion matrix without its zeros: K pairs of label and prediction."""

    labels: Ints  # (K,)
    predicted: Ints  # (K,)
    counts: Ints  # pictures of each pair, (K,)
    n_classes: int  # C

    @property
    def n_pictures(self) -> int:
        """Number of pictures in all pairs."""
        return int(self.counts.sum())

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The pairs as plain values, by label and then by prediction."""
        columns = (self.labels.tolist(), self.predicted.tolist(), self.counts.tolist())
        return tuple(Cell(*pair) for pair in zip(*columns, strict=True))


class _ClassCounts(NamedTuple):
    right: Floats  # (R, C)
    predicted: Floats  # (R, C)
    support: Floats  # (R, C)


def count_confusion(labels: Ints, predicted: Ints, n_classes: int) -> Confusion:
    """Return how often each prediction met each label; both (n,), n >= 1, none unknown."""
    pairs, counts = np.unique(labels * n_classes + predicted, return_counts=True)
    return Confusion(pairs // n_classes, pairs % n_classes, counts, n_classes)


def accuracy_and_macro_f1(
    confusion: Confusion, *, resamples: int = 1_000, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Return both with 95 % percentile bootstrap intervals (Efron, 1979) over pictures.

    Macro-F1 is the mean F1 of the classes that have pictures, as scikit-learn's ``f1_score`` with
    ``labels`` set to them; a resample's is that of the classes it drew, so that its interval leans
    upwards where many classes have few pictures.

    Args:
        confusion: Of at least one picture.
        resamples: How often the pictures are drawn.
        seed: Of the draws.
    """
    n = confusion.n_pictures
    # Pictures of one pair are alike to both metrics, so how often each pair is drawn is all that a
    # resample is: a multinomial draw, far smaller than n draws of pictures.
    drawn = np.random.default_rng(seed).multinomial(n, confusion.counts / n, size=resamples)
    means = _scores(confusion, confusion.counts[None])[0]  # (2,)
    low, high = np.quantile(_scores(confusion, drawn), [0.025, 0.975], axis=0)
    accuracy, macro_f1 = (
        Estimate(float(m), float(a), float(b)) for m, a, b in zip(means, low, high, strict=True)
    )
    return accuracy, macro_f1


def class_results(confusion: Confusion, classes: Sequence[str]) -> tuple[ClassResult, ...]:
    """Return precision, recall and F1 of the classes that have pictures, most frequent first."""
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
    """Return the pairs of a class and a sibling that it was taken for.

    Siblings are paths with the same parent ("Fruit > Apple" and "Fruit > Pear"). Names that are not
    paths all have the same parent, none, so that any two of them are siblings.
    """
    _, parents = np.unique(
        [name.rpartition(PATH_SEPARATOR)[0] for name in classes], return_inverse=True
    )
    wrong = confusion.labels != confusion.predicted
    kept = wrong & (parents[confusion.labels] == parents[confusion.predicted])
    return Confusion(
        confusion.labels[kept], confusion.predicted[kept], confusion.counts[kept], len(classes)
    )


def confused_pairs(
    confusion: Confusion, classes: Sequence[str], *, limit: int = 15
) -> tuple[ConfusedPair, ...]:
    """Return the siblings most often taken for each other, in either direction, most often first.

    Args:
        confusion: All pairs.
        classes: Names of the classes (C).
        limit: Largest number of pairs returned.
    """
    wrong = sibling_mistakes(confusion, classes)
    first, second = np.minimum(wrong.labels, wrong.predicted), np.maximum(*wrong[:2])
    # Each unordered pair is one cell above the diagonal, which both directions add to.
    pairs, positions = np.unique(first * len(classes) + second, return_inverse=True)
    counts = np.bincount(positions, weights=wrong.counts, minlength=len(pairs))
    support = np.bincount(confusion.labels, weights=confusion.counts, minlength=len(classes))
    found = []
    for row in np.argsort(-counts, kind="stable")[:limit]:
        a, b = divmod(int(pairs[row]), len(classes))
        share = float(counts[row] / (support[a] + support[b]))
        found.append(ConfusedPair(classes[a], classes[b], int(counts[row]), share))
    return tuple(found)


def _scores(confusion: Confusion, counts: Ints) -> Floats:
    """Return accuracy and macro-F1 of each row of counts (R, K), as (R, 2)."""
    right, predicted, support = _class_counts(confusion, counts)
    f1 = 2 * right / np.maximum(predicted + support, 1)
    present = support > 0
    macro_f1 = (f1 * present).sum(axis=1) / present.sum(axis=1)
    return np.stack([right.sum(axis=1) / support.sum(axis=1), macro_f1], axis=1)


def _class_counts(confusion: Confusion, counts: Ints) -> _ClassCounts:
    """Return how often each class was right, predicted and there, for each row of counts (R, K)."""

    def per_class(column: Ints, weights: NDArray[np.bool_] | Floats) -> Floats:
        entries = (weights.astype(np.float64), (np.arange(len(column)), column))
        summed: Floats = counts @ csr_array(entries, shape=(len(column), confusion.n_classes))
        return summed

    labels, predicted = confusion.labels, confusion.predicted
    ones = np.ones(len(labels))
    return _ClassCounts(
        right=per_class(labels, labels == predicted),
        predicted=per_class(predicted, ones),
        support=per_class(labels, ones),
    )
