"""The side of training pictures over a run."""

from vision.config import VisionConfig
from vision.training.growth import training_size


def test_pictures_grow_until_seventy_percent_of_the_run() -> None:
    config = VisionConfig(size=128, train_size=112, start_size=64, epochs=20)
    sides = [training_size(epoch, config) for epoch in range(20)]
    assert sides[0] == 64
    assert sides[7] == 96  # half of the growing is 88, and a tie goes to the even multiple
    assert sides[14:] == [112] * 6
    assert sides == sorted(sides)
    assert {side % 16 for side in sides} == {0}
    assert training_size(0, VisionConfig(size=128, train_size=100)) == 100
