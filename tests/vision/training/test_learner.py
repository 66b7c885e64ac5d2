"""One training step: what is blended, what is masked, what is scheduled."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vision.config import VisionConfig
from vision.dataset import Batch, Samples, decode_samples
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower
from vision.training.learner import Learner
from vision.transforms import Preprocess


def build(**changes: object) -> Learner:
    config = VisionConfig.model_validate(
        {"backbone": "resnet10t", "pretrained": False, "size": 32, **changes}
    )
    torch.manual_seed(0)
    classes = {"colour": ["a", "b", "c", "d"], "side.of it": ["s", "l"]}
    tower = VisionTower(build_backbone("resnet10t", size=32), dim=8, classes=classes)
    images = [Path(f"{row}.png") for row in range(40)]
    counts = {name: np.full(len(names), 10) for name, names in classes.items()}
    return Learner(tower, config, images=images, counts=counts, total_steps=10, seed=1)


@pytest.fixture
def batch(planted: Callable[..., Samples]) -> Batch:
    pictures = decode_samples(planted(40), Preprocess(size=36), spill=None, progress=False)
    return pictures.__getitems__(list(range(30, 40)))


def test_the_seed_of_a_step_repeats_it(batch: Batch) -> None:
    learner = build(augmentation="strong", cutmix=1.0, mixup=0.4)
    first = learner.training_step(batch, 0)
    torch.randn(100)
    torch.testing.assert_close(learner.training_step(batch, 5), first, atol=0, rtol=0)
    learner.seed = 2
    assert (learner.training_step(batch, 0) - first).abs() > 1e-4


def test_a_step_s_pictures_are_named_by_their_files(batch: Batch) -> None:
    assert build().name_samples(batch) == [f"{row}.png" for row in range(30, 40)]


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
