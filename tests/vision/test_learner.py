"""One training step: what is blended, what is masked, what is scheduled."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vision.backbones import build_backbone
from vision.config import VisionConfig
from vision.dataset import Batch, Samples, decode_samples
from vision.errors import TrainingError
from vision.learner import Learner, learning_rate_factor, training_size
from vision.tower import VisionTower
from vision.transforms import Preprocess


def build(**changes: object) -> Learner:
    config = VisionConfig.model_validate({"backbone": "resnet10t", "size": 32, **changes})
    torch.manual_seed(0)
    classes = {"colour": ["a", "b", "c", "d"], "side.of it": ["s", "l"]}
    tower = VisionTower(build_backbone("resnet10t", size=32), dim=8, classes=classes)
    images = [Path(f"{row}.png") for row in range(40)]
    return Learner(tower, config, images=images, total_steps=10, seed=1, fingerprint="")


@pytest.fixture
def batch(planted: Callable[..., Samples]) -> Batch:
    pictures = decode_samples(planted(40), Preprocess(size=36), spill=None, progress=False)
    return pictures.__getitems__(list(range(30, 40)))


def test_a_step_is_repeated_by_its_seed_alone(batch: Batch) -> None:
    learner = build(augmentation="strong", cutmix=1.0, mixup=0.4)
    first = learner.training_step(batch, 0)
    torch.randn(100)
    torch.testing.assert_close(learner.training_step(batch, 5), first, atol=0, rtol=0)
    learner.seed = 2
    assert (learner.training_step(batch, 0) - first).abs() > 1e-4


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_share_is_what_is_left_of_each_picture(kind: str) -> None:
    learner = build(**{kind: 1.0})
    images = torch.stack([torch.full((3, 40, 40), float(value)) for value in (0, 1, 2, 10)])
    for seed in range(20):
        mixed, mix = learner._mix(images, np.random.default_rng(seed))
        assert mix is not None
        assert mix.partner.tolist() == [3, 2, 1, 0]
        wanted = mix.share * images.mean((1, 2, 3)) + (1 - mix.share) * images[mix.partner].mean(
            (1, 2, 3)
        )
        torch.testing.assert_close(mixed.mean((1, 2, 3)), wanted, atol=1e-4, rtol=1e-4)
        assert 0 <= mix.share <= 1


def test_nothing_is_blended_unless_asked() -> None:
    images = torch.rand(4, 3, 8, 8)
    mixed, mix = build()._mix(images, np.random.default_rng(0))
    assert mix is None
    assert mixed is images


def test_a_loss_that_is_not_finite_names_the_pictures(batch: Batch) -> None:
    learner = build()
    with torch.no_grad():
        learner.tower.heads[0].weight.fill_(float("nan"))
    with pytest.raises(
        TrainingError,
        match=r"must be finite, got nan at step 0 .*30\.png, 31\.png.*37\.png and 2 more; lower",
    ):
        learner.training_step(batch, 0)


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


def test_norms_and_biases_are_not_decayed() -> None:
    learner = build(weight_decay=0.3)
    decayed, free = learner.configure_optimizers()["optimizer"].param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in free["params"]} == {1}
    count = len(decayed["params"]) + len(free["params"])
    assert count == len(list(learner.parameters()))


def test_without_a_weight_the_embedding_is_left_alone(batch: Batch) -> None:
    learner = build(embedding_weight=0.0)
    learner.training_step(batch, 0).backward()
    assert all(proxies.grad is None for proxies in learner.proxies)
    learner = build()
    learner.training_step(batch, 0).backward()
    assert all(proxies.grad is not None for proxies in learner.proxies)
