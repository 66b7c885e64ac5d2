"""Heads that start from the features of a backbone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vision.config import TransferConfig, VisionConfig
from vision.dataset import UNKNOWN, PictureSet, Samples
from vision.finetuning import build_tower, finetune
from vision.training.data import class_counts, decode_data
from vision.training.heads import FEATURE_NORM, PENALTY, fit_heads
from vision.training.learner import Learner
from vision.training.run import TrainingRun

CONFIG = VisionConfig(
    backbone="test_resnet",
    pretrained=False,
    size=32,
    dim=8,
    epochs=2,
    batch_size=16,
    augmentation="none",
    precision="32-true",
    transfer=TransferConfig(heads="fitted"),
)


@pytest.fixture
def fitted(
    planted: Callable[..., Samples], tmp_path: Path
) -> tuple[Learner, PictureSet, dict[str, Tensor]]:
    """A learner with fitted heads, its pictures, and the backbone as it was."""
    torch.manual_seed(0)
    samples = planted(80)
    tower = build_tower(samples.classes, CONFIG)
    run = TrainingRun(tmp_path, 0, torch.device("cpu"))
    data = decode_data(samples, None, tower.preprocess, CONFIG, run)
    counts = class_counts(data.train, tower.classes)
    learner = Learner(tower, CONFIG, images=data.train.images, counts=counts, total_steps=1, seed=0)
    before = {name: value.clone() for name, value in tower.backbone.state_dict().items()}
    fit_heads(learner, data.train)
    return learner, data.train, before


def features_of(learner: Learner, pictures: PictureSet) -> Tensor:
    from vision.transforms import normalise

    tower = learner.tower.eval()
    images = normalise(pictures.pictures, tower.preprocess)
    with torch.no_grad():
        features: Tensor = tower.backbone(
            F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
        )
    return features


def test_each_head_is_at_the_minimum_of_its_own_penalised_loss(
    fitted: tuple[Learner, PictureSet, dict[str, Tensor]],
) -> None:
    learner, pictures, _ = fitted
    features = features_of(learner, pictures)
    scale = FEATURE_NORM / features.norm(dim=1).mean()
    for column, head in enumerate(learner.tower.heads):
        labels = pictures.targets[:, column]
        known = labels != UNKNOWN
        logits = head(features)[known]
        loss = F.cross_entropy(logits, labels[known], label_smoothing=0.1)
        loss = loss + PENALTY / 2 * (head.weight / scale).square().sum()
        loss.backward()
        # In units of the scaled features, as they were fitted.
        assert (head.weight.grad * scale).abs().max() < 2e-3


def test_the_backbone_is_left_as_it_was(
    fitted: tuple[Learner, PictureSet, dict[str, Tensor]],
) -> None:
    learner, _, before = fitted
    for name, value in learner.tower.backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0.0, atol=0.0)
    assert learner.tower.training


def test_embeddings_have_the_distances_of_the_main_axes_of_the_features(
    fitted: tuple[Learner, PictureSet, dict[str, Tensor]],
) -> None:
    learner, pictures, _ = fitted
    features = features_of(learner, pictures)
    centred = features - features.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:8]
    with torch.no_grad():
        projected = learner.tower.project[0](centred)
    torch.testing.assert_close(
        torch.cdist(projected, projected),
        torch.cdist(centred @ axes.T, centred @ axes.T),
        rtol=1e-3,
        atol=1e-3,
    )


def test_each_proxy_is_the_mean_of_its_class(
    fitted: tuple[Learner, PictureSet, dict[str, Tensor]],
) -> None:
    learner, pictures, _ = fitted
    with torch.no_grad():
        embeddings = learner.tower.eval().read(features_of(learner, pictures)).embeddings
    for column, proxies in enumerate(learner.proxies):
        for label, proxy in enumerate(proxies):
            mean = embeddings[pictures.targets[:, column] == label].mean(dim=0)
            torch.testing.assert_close(
                proxy.detach(), F.normalize(mean, dim=0), rtol=1e-3, atol=1e-3
            )


def test_a_target_without_a_label_keeps_its_random_head(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples = planted(32)
    unknown = np.full(len(samples), UNKNOWN)
    samples = replace(samples, targets={**samples.targets, "side.of it": unknown})
    result = finetune(samples, CONFIG, workdir=tmp_path, seed=0)
    assert result.tower.heads[1].weight.abs().max() > 0


def test_validation_is_never_worse_than_that_of_the_start(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    samples, validation = planted(64), planted(40, seed=1)
    still = CONFIG.model_copy(update={"learning_rate": 1e-12})
    ruinous = CONFIG.model_copy(update={"learning_rate": 1.0})
    start = finetune(samples, still, validation=validation, workdir=tmp_path / "a", seed=0)
    end = finetune(samples, ruinous, validation=validation, workdir=tmp_path / "b", seed=0)

    def accuracy(metrics: dict[str, float]) -> float:
        return float(np.mean([value for name, value in metrics.items() if name != "loss"]))

    assert accuracy(end.metrics) >= accuracy(start.metrics) > 0.5
