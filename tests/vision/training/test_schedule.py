"""Learning rate and picture size over a run."""

import math

import pytest

from vision.config import VisionConfig
from vision.training.schedule import learning_rate_factor, training_size


def test_the_learning_rate_rises_then_follows_a_cosine_to_zero() -> None:
    factors = [learning_rate_factor(step, 4, 20) for step in range(21)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx(0.5)
    assert factors[16] == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))
    assert factors[20] == pytest.approx(0.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_pictures_grow_until_seventy_percent_of_the_run() -> None:
    config = VisionConfig(size=128, train_size=112, start_size=64, epochs=20)
    sides = [training_size(epoch, config) for epoch in range(20)]
    assert sides[0] == 64
    assert sides[7] == 96  # half of the growing is 88, and a tie goes to the even multiple
    assert sides[14:] == [112] * 6
    assert sides == sorted(sides)
    assert {side % 16 for side in sides} == {0}
    assert training_size(0, VisionConfig(size=128, train_size=100)) == 100
