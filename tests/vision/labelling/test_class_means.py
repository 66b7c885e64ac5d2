"""Heads set to class means: the nearest mean wins, with its probability."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from vision.dataset import Samples
from vision.labelling.class_means import with_class_means
from vision.networks.backbones import Backbone, BackboneSpec
from vision.tower import VisionTower
from vision.transforms import Preprocess


class MeanColour(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


@pytest.fixture
def tower(planted: Callable[..., Samples]) -> VisionTower:
    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    backbone = Backbone(MeanColour(), 3, preprocess, BackboneSpec(name="mean", size=32))
    return VisionTower(backbone, dim=2, classes=planted(4).classes)


def features_of(tower: VisionTower, samples: Samples) -> np.ndarray:
    assert samples.root is not None
    seen: list[torch.Tensor] = []
    hook = tower.backbone.register_forward_hook(lambda _, __, output: seen.append(output))
    tower.predict([samples.root / image for image in samples.images])
    hook.remove()
    return torch.cat(seen).numpy()


def test_the_nearest_mean_is_predicted_with_the_density_s_probability(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples, asked = planted(40), planted(20, seed=1)
    got = with_class_means(tower, samples)
    features, labels = features_of(tower, samples), samples.targets["colour"]
    means = np.stack([features[labels == kind].mean(axis=0) for kind in range(4)])
    variance = np.mean(
        [(row - means[kind]) ** 2 for row, kind in zip(features, labels, strict=True)]
    )
    questions = features_of(tower, asked)
    densities = np.array(
        [
            [np.exp(-((row - mean) ** 2).sum() / (2 * variance)) for mean in means]
            for row in questions
        ]
    )
    wanted = densities / densities.sum(axis=1, keepdims=True)
    assert asked.root is not None
    predicted = got.predict([asked.root / image for image in asked.images])["colour"]
    np.testing.assert_allclose(predicted, wanted, atol=1e-3)


def test_the_tower_is_left_alone_and_a_class_never_seen_is_never_said(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(40)
    before = [head.weight.clone() for head in tower.heads]
    some = samples.take(np.flatnonzero(samples.targets["colour"] != 2))
    got = with_class_means(tower, some)
    assert all(torch.equal(a, b.weight) for a, b in zip(before, tower.heads, strict=True))
    assert samples.root is not None
    predicted = got.predict([samples.root / image for image in samples.images])["colour"]
    assert predicted[:, 2].max() < 1e-6
    assert np.isfinite(predicted).all()


def test_samples_of_other_classes_are_refused(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(4)
    other = Samples(samples.images, {"kind": np.zeros(4, dtype=np.int64)}, {"kind": ["a"]})
    with pytest.raises(ValueError, match="targets and classes of the tower"):
        with_class_means(tower, other)
