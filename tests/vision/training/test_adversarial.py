"""Changed pictures: worse for the loss, within epsilon, within what a pixel can be."""

from typing import Literal

import pytest
import torch

from vision.config import AdversarialConfig
from vision.training.adversarial import perturb
from vision.transforms import Preprocess

PREPROCESS = Preprocess(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.5))


def linear_loss(images: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, 8)
    return (images * weights).sum()


def settings(method: Literal["fgsm", "pgd"], epsilon: float = 4.0) -> AdversarialConfig:
    return AdversarialConfig(method=method, epsilon=epsilon)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_a_linear_loss_is_raised_to_the_corner_of_the_box(method: Literal["fgsm", "pgd"]) -> None:
    images = torch.zeros(2, 3, 8, 8)
    changed = perturb(images, linear_loss, settings(method), PREPROCESS)
    epsilon = 4.0 / 255.0 / torch.tensor(PREPROCESS.std).view(1, 3, 1, 1)
    corner = torch.linspace(-1, 1, 8).sign() * epsilon
    torch.testing.assert_close(changed, corner.expand_as(changed), atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_pixels_stay_between_black_and_white(method: Literal["fgsm", "pgd"]) -> None:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    pixels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    changed = perturb((pixels - mean) / std, linear_loss, settings(method, 50.0), PREPROCESS)
    restored = changed * std + mean
    assert restored.min() >= -1e-6
    assert restored.max() <= 1 + 1e-6
    assert (restored - pixels).abs().max() <= 50 / 255 + 1e-6


def test_pgd_turns_where_one_step_overshoots() -> None:
    def curved(images: torch.Tensor) -> torch.Tensor:
        return -((images - 0.01) ** 2).sum()  # best close by, inside the box

    images = torch.zeros(1, 3, 8, 8)
    one = perturb(images, curved, settings("fgsm", 8.0), PREPROCESS)
    config = AdversarialConfig(method="pgd", epsilon=8.0, steps=50)
    several = perturb(images, curved, config, PREPROCESS)
    assert curved(several) > curved(one)


def test_the_result_is_detached_and_leaves_no_gradients() -> None:
    weight = torch.ones(8, requires_grad=True)
    images = torch.zeros(1, 3, 8, 8)
    changed = perturb(images, lambda x: (x * weight).sum(), settings("fgsm"), PREPROCESS)
    assert weight.grad is None
    assert not changed.requires_grad
