"""The evaluation of one target depends on probabilities and labels only."""

import numpy as np
import pytest

from vision.arrays import Floats
from vision.report.calibration import at_temperature, reliability
from vision.report.slices import FREQUENCY
from vision.report.target import evaluate_probabilities

CLASSES = ["a", "b", "c"]


def predicting(predicted: list[int], confidence: float = 0.8) -> Floats:
    """Return class probabilities that are largest for the predicted classes."""
    rest = (1 - confidence) / 2
    probabilities = rest + (confidence - rest) * np.eye(3)[predicted]
    return probabilities.astype(np.float32)


def test_unknown_labels_are_left_out_and_counted() -> None:
    labels = np.array([0, -1, 1, 1, -1])
    got = evaluate_probabilities(predicting([0, 2, 1, 0, 2]), labels, CLASSES)
    known = evaluate_probabilities(predicting([0, 1, 0]), np.array([0, 1, 1]), CLASSES)
    assert (got.n_pictures, got.n_unknown) == (3, 2)
    assert got.accuracy.mean == pytest.approx(2 / 3)
    assert got.majority == pytest.approx(2 / 3)
    assert got.macro_f1 == known.macro_f1
    assert got.confusion == known.confusion
    assert (got.n_mistakes, got.n_sibling_mistakes) == (1, 1)


def test_a_class_without_pictures_does_not_count() -> None:
    got = evaluate_probabilities(predicting([0, 2, 1]), np.array([0, 0, 1]), CLASSES)
    assert [one.name for one in got.classes] == ["a", "b"]
    assert got.macro_f1.mean == pytest.approx((2 / 3 + 1) / 2)
    assert got.names == ("a", "b", "c")


def test_a_single_picture_is_measured() -> None:
    got = evaluate_probabilities(predicting([1]), np.array([2]), CLASSES, slices={"store": ["x"]})
    assert got.accuracy.mean == got.accuracy.high == 0.0
    assert got.macro_f1.mean == 0.0
    assert [one.n_pictures for one in got.slices] == [1, 1]


def test_a_single_class_is_always_correct() -> None:
    got = evaluate_probabilities(np.ones((4, 1)), np.zeros(4, dtype=np.int64), ["only"])
    assert got.accuracy.mean == got.macro_f1.mean == got.majority == 1.0
    assert got.calibration.raw.ece == 0.0
    assert got.confused == ()


def test_probabilities_are_scaled_only_if_a_temperature_is_passed() -> None:
    labels = np.array([0, 1, 1, 2])
    probabilities = predicting([0, 1, 0, 0])
    without = evaluate_probabilities(probabilities, labels, CLASSES).calibration
    assert without.temperature is None
    assert without.scaled is None
    scaled = evaluate_probabilities(probabilities, labels, CLASSES, temperature=2.0).calibration
    assert scaled.temperature == 2.0
    assert scaled.raw == without.raw
    assert scaled.scaled == reliability(at_temperature(probabilities, 2.0), labels)


def test_groups_stay_with_their_pictures_when_unknown_labels_are_left_out() -> None:
    labels = np.array([-1, 0, 1, 2])
    groups = ["lund", "lund", "kiruna", "kiruna"]
    got = evaluate_probabilities(
        predicting([0, 0, 1, 0]), labels, CLASSES, slices={"store": groups}
    )
    by_store = {part.group: (part.n_pictures, part.accuracy.mean) for part in got.slices[:2]}
    assert by_store == {"kiruna": (2, 0.5), "lund": (1, 1.0)}
    assert got.slices[2].grouping == FREQUENCY
    assert evaluate_probabilities(predicting([0]), np.array([0]), CLASSES).slices == ()


def test_wrong_arguments_are_refused_by_name() -> None:
    probabilities, labels = predicting([0, 1]), np.array([0, 1])
    with pytest.raises(ValueError, match=r"must have shape \(2, 2\) to match .*, got \(2, 3\)"):
        evaluate_probabilities(probabilities, labels, ["a", "b"])
    for wrong in (probabilities * 2, probabilities - 0.4, probabilities * np.nan):
        with pytest.raises(ValueError, match="at least 0 and add up to 1 in every row"):
            evaluate_probabilities(wrong, labels, CLASSES)
    with pytest.raises(ValueError, match="labels must be between -1 and 2, got 0 to 3"):
        evaluate_probabilities(probabilities, np.array([0, 3]), CLASSES)
    with pytest.raises(ValueError, match="must have a known label to measure, got 2 times -1"):
        evaluate_probabilities(probabilities, np.array([-1, -1]), CLASSES)
    with pytest.raises(ValueError, match="must have a known label to measure, got 0"):
        evaluate_probabilities(probabilities[:0], labels[:0], CLASSES)
    with pytest.raises(
        ValueError, match=r"slices\['store'\] must have one group per picture \(2\)"
    ):
        evaluate_probabilities(probabilities, labels, CLASSES, slices={"store": ["x"]})
