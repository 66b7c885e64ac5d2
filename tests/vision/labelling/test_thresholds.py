"""Tuned thresholds are compared with a brute-force search over the same grid."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from vision.labelling.thresholds import CANDIDATES, apply_thresholds, tune_thresholds


def planted(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return predictions for three classes, the last of which is rare and predicted too seldom."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=count, p=[0.6, 0.3, 0.1])
    logits = rng.normal(size=(count, 3)) + 2.0 * np.eye(3)[labels] - [0.0, 0.5, 2.5]
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels.astype(np.int64)


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    scores = []
    for kind in sorted(set(labels[labels >= 0].tolist())):
        actual = labels == kind
        given = (predicted == kind) & (labels >= 0)
        scores.append(2 * (given & actual).sum() / (given.sum() + actual.sum()))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(4))
def test_a_small_problem_reaches_the_best_thresholds_of_the_grid(seed: int) -> None:
    probabilities, labels = planted(40, seed)
    tuned = macro_f1(
        apply_thresholds(probabilities, tune_thresholds(probabilities, labels)), labels
    )
    # Only ratios matter, so one class can stay at 1.
    best = max(
        macro_f1(apply_thresholds(probabilities, np.array([1.0, second, third])), labels)
        for second, third in itertools.product(CANDIDATES, CANDIDATES)
    )
    assert tuned == pytest.approx(best)


def test_no_single_change_improves_tuned_thresholds() -> None:
    probabilities, labels = planted(300, 7)
    thresholds = tune_thresholds(probabilities, labels)
    tuned = macro_f1(apply_thresholds(probabilities, thresholds), labels)
    assert tuned > macro_f1(probabilities.argmax(axis=1), labels) + 0.02
    for kind, candidate in itertools.product(range(3), CANDIDATES):
        changed = thresholds.copy()
        changed[kind] = candidate
        assert macro_f1(apply_thresholds(probabilities, changed), labels) <= tuned


def test_thresholds_improve_other_pictures_with_the_same_imbalance() -> None:
    thresholds = tune_thresholds(*planted(600, 1))
    probabilities, labels = planted(600, 2)
    tuned = macro_f1(apply_thresholds(probabilities, thresholds), labels)
    assert tuned > macro_f1(probabilities.argmax(axis=1), labels) + 0.02
    assert thresholds[2] < thresholds[0]


def test_unknown_labels_are_ignored() -> None:
    probabilities, labels = planted(100, 3)
    hidden = labels.copy()
    hidden[::3] = -1
    kept = hidden >= 0
    np.testing.assert_array_equal(
        tune_thresholds(probabilities, hidden),
        tune_thresholds(probabilities[kept], labels[kept]),
    )


def test_thresholds_stay_at_1_where_nothing_can_improve() -> None:
    sure = np.eye(4, dtype=np.float32)
    assert tune_thresholds(sure, np.array([0, 1, 2, -1])).tolist() == [1.0] * 4
    assert tune_thresholds(sure, np.full(4, -1)).tolist() == [1.0] * 4
    assert tune_thresholds(np.ones((3, 1)), np.zeros(3, dtype=np.int64)).tolist() == [1.0]


def test_tuning_decides_ties_as_applying_does() -> None:
    """All probabilities are equal, so every prediction is decided by the thresholds."""
    probabilities = np.full((9, 3), 1 / 3)
    labels = np.array([2, 2, 2, 2, 2, 2, 1, 1, 0])
    thresholds = tune_thresholds(probabilities, labels)
    assert apply_thresholds(probabilities, thresholds).tolist() == [2] * 9


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, C\) and \(n,\), got \(3, 2\) and \(4,\)"):
        tune_thresholds(np.ones((3, 2)), np.zeros(4, dtype=np.int64))
