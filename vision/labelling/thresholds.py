"""One decision threshold per class, tuned on validation pictures to maximise macro-F1."""

import numpy as np
from numpy.typing import NDArray

from vision.arrays import Doubles, Ints
from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError

# Thresholds from 1/16 to 16 in steps of a quarter octave, nearest to 1 first, so that the smallest
# change wins a tie. A finer grid would only overfit the validation pictures.
_STEPS = np.arange(-16, 17)
CANDIDATES: Doubles = 2.0 ** (_STEPS[np.argsort(abs(_STEPS), kind="stable")] / 4.0)


def apply_thresholds(probabilities: NDArray[np.floating], thresholds: Doubles) -> Ints:
    """Return the class of each row with the largest ratio of probability to threshold, int64 (n,).

    Args:
        probabilities: Class probabilities (n, C).
        thresholds: Threshold of each class (C,). Only their ratios matter.
    """
    predicted: Ints = (probabilities / thresholds).argmax(axis=1)
    return predicted


def tune_thresholds(probabilities: NDArray[np.floating], labels: Ints) -> Doubles:
    """Return the threshold of each class, float64 (C,), that maximises macro-F1.

    Coordinate ascent: the threshold of one class after another is set to the best value of a grid
    from 1/16 to 16, until no change improves macro-F1. The result may be a local optimum, and it is
    fitted to these pictures. The gain must therefore be measured on other pictures, because a
    single picture can change the threshold of a small class. A class without pictures keeps 1 and
    does not count in macro-F1.

    Args:
        probabilities: Class probabilities (n, C) of pictures that were not trained on.
        labels: Class indices (n,). Rows with -1, which means unknown, are left out.

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
        for tuned in np.unique(labels):
            others = np.delete(probabilities / thresholds, tuned, axis=1)
            if others.shape[1] == 0:
                break
            rivals, scores = others.argmax(axis=1), others.max(axis=1)
            rivals += rivals >= tuned
            for candidate in CANDIDATES:
                own = probabilities[:, tuned] / candidate
                # As in argmax, the class with the lower index wins a tie.
                wins = (own > scores) | ((own == scores) & (tuned < rivals))
                f1 = _macro_f1(np.where(wins, tuned, rivals), labels, len(thresholds))
                if f1 > best:
                    best, thresholds[tuned], improved = f1, candidate, True
    return thresholds


def _macro_f1(predicted: Ints, labels: Ints, n_classes: int) -> float:
    """Return the mean F1 of the classes that occur in the labels."""
    true = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[predicted == labels], minlength=n_classes)
    f1 = 2.0 * hits / np.maximum(true + np.bincount(predicted, minlength=n_classes), 1)
    return float(f1[true > 0].mean())
