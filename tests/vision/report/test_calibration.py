"""The calibration error is compared with its definition, and temperatures with planted ones."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from vision.arrays import Doubles, Ints
from vision.report.calibration import at_temperature, fit_temperature, reliability

Predictions = tuple[Doubles, Ints]


def overconfident(temperature: float, count: int = 4_000) -> Predictions:
    """Return labels, and probabilities whose logits are this factor too large for them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (count, 5))
    cumulated = softmax(logits, axis=1).cumsum(axis=1)
    labels = (rng.random(count)[:, None] > cumulated[:, :-1]).sum(axis=1)
    return softmax(logits * temperature, axis=1), labels


def test_the_error_equals_its_definition_as_a_loop() -> None:
    probabilities, labels = overconfident(2.0, 300)
    total = 0.0
    for m in range(1, 16):
        inside = [
            (p.max(), p.argmax() == label)
            for p, label in zip(probabilities, labels, strict=True)
            if (m - 1) / 15 < p.max() <= m / 15
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / 300 * abs(accuracy - confidence)
    assert reliability(probabilities, labels).ece == pytest.approx(total)


def test_the_error_equals_that_of_torchmetrics() -> None:
    probabilities, labels = overconfident(2.0)
    wanted = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=5, n_bins=15
    )
    assert reliability(probabilities, labels).ece == pytest.approx(float(wanted), abs=1e-5)


def test_bins_count_every_picture_once_and_average_to_the_accuracy() -> None:
    probabilities, labels = overconfident(1.0)
    bins = [each for each in reliability(probabilities, labels).bins if each is not None]
    assert sum(each.count for each in bins) == len(labels)
    accuracy = sum(each.accuracy * each.count for each in bins) / len(labels)
    assert accuracy == pytest.approx((probabilities.argmax(axis=1) == labels).mean())


def test_a_confidence_on_the_edge_is_in_the_bin_below_and_1_in_the_last() -> None:
    probabilities = np.array([[0.8, 0.2], [1.0, 0.0]])
    bins = reliability(probabilities, np.array([0, 1])).bins
    assert [position for position, each in enumerate(bins) if each] == [11, 14]
    assert bins[11] is not None
    assert bins[11].accuracy == 1.0


def test_the_planted_temperature_is_found_and_reduces_the_error() -> None:
    probabilities, labels = overconfident(2.5)
    temperature = fit_temperature(probabilities, labels)
    assert temperature == pytest.approx(2.5, rel=0.05)
    before = reliability(probabilities, labels).ece
    after = reliability(at_temperature(probabilities, temperature), labels).ece
    assert after < 0.03 < 0.1 < before


def test_a_temperature_divides_the_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (10, 4))
    got = at_temperature(softmax(logits, axis=1), 1.7)
    np.testing.assert_allclose(got, softmax(logits / 1.7, axis=1), rtol=1e-9)


def test_a_temperature_does_not_change_the_predictions() -> None:
    probabilities, _ = overconfident(1.0, 200)
    scaled = at_temperature(probabilities, 7.0)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1.0)


def test_probabilities_of_zero_give_finite_results() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert np.isfinite(at_temperature(probabilities, 3.0)).all()
    assert 0.05 <= fit_temperature(probabilities, np.array([0, 1])) < 1.0
    assert fit_temperature(probabilities, np.array([1, 0])) == pytest.approx(20.0, rel=0.01)


def test_unknown_labels_do_not_change_the_temperature() -> None:
    probabilities, labels = overconfident(2.0, 400)
    hidden = np.where(np.arange(400) % 2 == 0, labels, -1)
    assert fit_temperature(probabilities, hidden) == fit_temperature(
        probabilities[::2], labels[::2]
    )


def test_labels_that_are_all_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="a known label to fit a temperature to, got 3 times -1"):
        fit_temperature(np.full((3, 2), 0.5), np.array([-1, -1, -1]))


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        at_temperature(np.full((3, 2), 0.5), 0)
