"""Blended pictures: the share says what is left of each."""

import numpy as np
import pytest
import torch

from vision.config import VisionConfig
from vision.training.mixing import mix_pictures


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_share_is_what_is_left_of_each_picture(kind: str) -> None:
    config = VisionConfig.model_validate({kind: 1.0})
    images = torch.stack([torch.full((3, 40, 40), float(value)) for value in (0, 1, 2, 10)])
    for seed in range(20):
        mixed, mix = mix_pictures(images, config, np.random.default_rng(seed))
        assert mix is not None
        assert mix.partner.tolist() == [3, 2, 1, 0]
        wanted = mix.share * images.mean((1, 2, 3)) + (1 - mix.share) * images[mix.partner].mean(
            (1, 2, 3)
        )
        torch.testing.assert_close(mixed.mean((1, 2, 3)), wanted, atol=1e-4, rtol=1e-4)
        assert 0 <= mix.share <= 1


def test_cutmix_keeps_pixels_whole_and_mixup_does_not() -> None:
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    rng = np.random.default_rng(1)
    cut, _ = mix_pictures(images, VisionConfig(cutmix=1.0), rng)
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    blended, mix = mix_pictures(images, VisionConfig(mixup=1.0), rng)
    assert mix is not None
    assert blended[0].unique().tolist() == pytest.approx([1 - mix.share])


def test_with_both_on_each_is_used_for_half_of_the_batches() -> None:
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    config, rng = VisionConfig(cutmix=1.0, mixup=1.0), np.random.default_rng(0)
    whole = [set(mix_pictures(images, config, rng)[0].unique().tolist()) for _ in range(200)]
    assert 70 < sum(values <= {0.0, 1.0} for values in whole) < 130


def test_nothing_is_blended_by_default() -> None:
    images = torch.rand(4, 3, 8, 8)
    mixed, mix = mix_pictures(images, VisionConfig(), np.random.default_rng(0))
    assert mix is None
    assert mixed is images
