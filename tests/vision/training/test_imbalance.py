"""Weights against imbalance, and draws by those weights."""

import numpy as np
import pytest

from vision.config import Weighting
from vision.training.imbalance import EpochDraw, class_weights, count_classes, sampling_weights

COUNTS = np.array([1000, 100, 0, 10])


def test_unknown_labels_are_not_counted() -> None:
    assert count_classes(np.array([2, -1, 0, 2, -1]), 4).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("weighting", ["balanced", "effective_number"])
def test_weights_have_mean_one_over_pictures_and_are_zero_for_absent_classes(
    weighting: Weighting,
) -> None:
    weights = class_weights(COUNTS, weighting)
    assert weights is not None
    assert (weights @ COUNTS) / COUNTS.sum() == pytest.approx(1.0)
    assert weights[2] == 0.0
    assert weights[3] > weights[1] > weights[0] > 0.0


def test_balanced_is_the_inverse_count() -> None:
    weights = class_weights(COUNTS, "balanced")
    assert weights is not None
    assert weights[3] / weights[0] == pytest.approx(100.0)


def test_effective_number_counts_each_picture_for_less_than_the_one_before() -> None:
    """The sum 1 + beta + beta ** 2 + ... has one term for each picture."""
    numbers = {count: sum(0.99**term for term in range(count)) for count in (1000, 100, 10)}
    weights = class_weights(COUNTS, "effective_number", 0.99)
    assert weights is not None
    assert weights[1] / weights[0] == pytest.approx(numbers[1000] / numbers[100])
    assert weights[3] / weights[0] == pytest.approx(numbers[1000] / numbers[10])


def test_beta_goes_from_equal_weights_to_the_inverse_count() -> None:
    counts = np.array([40, 10])
    alike, near = (class_weights(counts, "effective_number", beta) for beta in (0.0, 1 - 1e-7))
    np.testing.assert_allclose(alike, [1.0, 1.0])  # type: ignore[arg-type]
    np.testing.assert_allclose(near, [0.625, 2.5], rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("weighting", ["none", "balanced", "effective_number"])
def test_without_labels_weights_are_zero_and_sampling_is_uniform(weighting: Weighting) -> None:
    weights = class_weights(np.zeros(3, dtype=np.int64), weighting)
    assert weights is None or weights.tolist() == [0.0, 0.0, 0.0]
    assert sampling_weights(np.array([-1, -1]), weighting).tolist() == [1.0, 1.0]
    assert sampling_weights(np.zeros(0, dtype=np.int64), weighting).shape == (0,)


def test_beta_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="beta must be at least 0 and below 1, got 1"):
        class_weights(COUNTS, "effective_number", 1.0)


def test_an_unknown_label_is_drawn_as_often_as_the_mean() -> None:
    weights = sampling_weights(np.array([0, 0, 0, -1, 1]), "balanced")
    assert weights.dtype == np.float64
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1.0, 2.0])
    assert weights.mean() == pytest.approx(1.0)
    assert sampling_weights(np.array([0, -1, 3]), "none").tolist() == [1.0, 1.0, 1.0]


def test_classes_are_drawn_equally_often_by_balanced_weights() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    rows = list(EpochDraw(sampling_weights(labels, "balanced"), 4000, seed=0))
    assert len(rows) == 4000
    assert labels[rows].mean() == pytest.approx(0.5, abs=0.03)
    assert set(rows) == set(range(100))


def test_draws_depend_only_on_seed_and_epoch() -> None:
    weights = np.array([1.0, 2.0, 0.0, 3.0])

    def draw(seed: int, epoch: int) -> list[int]:
        order = EpochDraw(weights, 50, seed)
        order.set_epoch(epoch)
        assert len(order) == 50
        assert list(order) == list(order)
        return list(order)

    assert draw(0, 3) == draw(0, 3)
    assert draw(0, 3) != draw(0, 4)
    assert draw(0, 3) != draw(1, 3)
    assert 2 not in draw(0, 3)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 3.0], [1.0, float("nan")]])
def test_weights_that_cannot_be_drawn_by_are_an_error(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be finite, not negative and not all 0"):
        EpochDraw(np.array(weights), 5, seed=0)
