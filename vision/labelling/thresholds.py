"""Decision thresholds per class, tuned on validation pictures for the macro-averaged F1."""

import numpy as np
from numpy.typing import NDArray

from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError

# From 1/16 to 16 by quarters of an octave, nearest to 1 first: the least change wins a tie. A finer
# grid would only fit the validation pictures more closely.
_STEPS = np.arange(-16, 17)
CANDIDATES: NDArray[np.float64] = 2.0 ** (_STEPS[np.argsort(abs(_STEPS), kind="stable")] / 4.0)


def apply_thresholds(
    probabilities: NDArray[np.floating], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the class of each row whose probability is largest over its threshold, int64 (n,).

    Args:
        probabilities: (n, C).
        thresholds: (C,); only their ratios matter.
    """
    predicted: NDArray[np.int64] = (probabilities / thresholds).argmax(axis=1)
    return predicted


def tune_thresholds(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the threshold of each class, float64 (C,), that macro-F1 is best with.

    Coordinate ascent: one class's threshold after another takes the best of a grid from 1/16 to 16
    while the others stand, until none improves. That may be a local optimum, and it fits these
    pictures: a class with a handful of them can be moved by a single one, so the gain has to be
    measured on others. A class without any keeps 1 and does not count.

    Args:
        probabilities: Of pictures that were not trained on, (n, C).
        labels: Class indices, (n,); -1 where unknown, which is left out.

    Raises:
        InvalidArgumentError: If the shapes disagree.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise InvalidArgumentError(
            f"probabilities and labels must have shapes (n, C) and (n,), "
            f"got {probabilities.shape} and {labels.shape}"
        )
    known = labels != UNKNOWN
    probabilities, labels = probabilities[known].astype(np.float64), labels[known]
    thresholds = np.ones(probabilities.shape[1])
    best = _macro_f1(probabilities.argmax(axis=1), labels, len(thresholds)) if len(labels) else 1.0
    improved = True
    while improved:
        improved = False
        for which in np.unique(labels):
            others = np.delete(probabilities / thresholds, which, axis=1)
            if others.shape[1] == 0:
                break
            rivals, scores = others.argmax(axis=1), others.max(axis=1)
            rivals += rivals >= which
            for candidate in CANDIDATES:
                own = probabilities[:, which] / candidate
                # As in argmax, the class of the lower index has a tie.
                wins = (own > scores) | ((own == scores) & (which < rivals))
                f1 = _macro_f1(np.where(wins, which, rivals), labels, len(thresholds))
                if f1 > best:
                    best, thresholds[which], improved = f1, candidate, True
    return thresholds


def _macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64], n_classes: int) -> float:
    """Return the mean F1 of the classes that occur in the labels."""
    true = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[predicted == labels], minlength=n_classes)
    f1 = 2.0 * hits / np.maximum(true + np.bincount(predicted, minlength=n_classes), 1)
    return float(f1[true > 0].mean())
