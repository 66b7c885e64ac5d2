"""Heads set to class means predict the nearest mean, with its probability."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.vision.planted_towers import mean_colour_tower
from vision.arrays import Floats
from vision.dataset import Samples
from vision.labelling.class_means import with_class_means
from vision.tower import VisionTower


@pytest.fixture
def tower(planted: Callable[..., Samples]) -> VisionTower:
    return mean_colour_tower(planted(4).classes, dim=2, size=32)


def features_of(tower: VisionTower, samples: Samples) -> Floats:
    assert samples.root is not None
    seen: list[torch.Tensor] = []
    hook = tower.backbone.register_forward_hook(lambda _, __, output: seen.append(output))
    tower.predict_proba([samples.root / image for image in samples.images])
    hook.remove()
    features: Floats = torch.cat(seen).numpy()
    return features


def test_the_nearest_mean_is_predicted_with_the_probability_of_its_density(
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
    predicted = got.predict_proba([asked.root / image for image in asked.images])["colour"]
    np.testing.assert_allclose(predicted, wanted, atol=1e-3)


def test_the_tower_is_not_changed_and_a_class_without_pictures_is_never_predicted(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(40)
    before = [head.weight.clone() for head in tower.heads]
    some = samples.take(np.flatnonzero(samples.targets["colour"] != 2))
    got = with_class_means(tower, some)
    assert all(torch.equal(a, b.weight) for a, b in zip(before, tower.heads, strict=True))
    assert samples.root is not None
    predicted = got.predict_proba([samples.root / image for image in samples.images])["colour"]
    assert predicted[:, 2].max() < 1e-6
    assert np.isfinite(predicted).all()


def test_samples_of_other_classes_are_refused(
    tower: VisionTower, planted: Callable[..., Samples]
) -> None:
    samples = planted(4)
    other = Samples(samples.images, {"kind": np.zeros(4, dtype=np.int64)}, {"kind": ["a"]})
    with pytest.raises(ValueError, match="targets and classes of the tower"):
        with_class_means(tower, other)
