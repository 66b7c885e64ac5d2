"""One tower of several: averaged weights, averaged answers."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from vision.batches import ImageSource
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower
from vision.tuning.ensemble import ensemble_predict_proba, soup

CLASSES = {"colour": ["red", "green", "blue"], "side.of it": ["small", "large"]}


def build(seed: int, backbone: str = "test_resnet", **changes: object) -> VisionTower:
    torch.manual_seed(seed)
    options = {"dim": 8, "classes": CLASSES, **changes}
    tower = VisionTower(build_backbone(backbone, size=32), **options)  # type: ignore[arg-type]
    # A step in training mode changes the statistics and counts of batch norms.
    for _ in range(seed):
        tower(torch.randn(4, 3, 32, 32))
    return tower


@pytest.fixture
def pictures() -> list[ImageSource]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 32, 3), dtype=np.uint8)) for _ in range(5)]


def test_every_weight_and_statistic_of_a_soup_is_a_mean() -> None:
    towers = [build(seed) for seed in (1, 2, 3)]
    mixed = soup(towers)
    assert not mixed.training
    for name, value in mixed.state_dict().items():
        parts = [tower.state_dict()[name] for tower in towers]
        if value.is_floating_point():
            wanted = (parts[0] + parts[1] + parts[2]) / 3
            torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-5)
        else:
            assert value == parts[0]
            assert parts[0] != parts[1]


def test_a_soup_of_one_tower_is_an_independent_copy_of_it(pictures: list[ImageSource]) -> None:
    tower = build(1)
    before = copy.deepcopy(tower.state_dict())
    mixed = soup([tower, tower])
    np.testing.assert_allclose(mixed.embed(pictures), tower.embed(pictures), atol=1e-6)
    with torch.no_grad():
        for value in mixed.parameters():
            value.zero_()
    for name, value in tower.state_dict().items():
        assert torch.equal(value, before[name])
    assert tower.training


def test_an_ensemble_averages_the_probabilities_of_different_networks(
    pictures: list[ImageSource],
) -> None:
    towers = [build(1), build(2, "test_vit", dim=4)]
    got = ensemble_predict_proba(towers, pictures, batch_size=2)
    first, second = (tower.predict_proba(pictures) for tower in towers)
    assert list(got) == list(CLASSES)
    for name in CLASSES:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], (first[name] + second[name]) / 2, atol=1e-6)
        np.testing.assert_allclose(got[name].sum(axis=1), 1.0, atol=1e-5)


def test_towers_that_differ_are_refused_with_the_difference() -> None:
    tower, other = build(0), build(0, classes={"colour": ["red", "green", "blue"]})
    with pytest.raises(ValueError, match="towers must be at least one, got none"):
        soup([])
    with pytest.raises(ValueError, match="same targets and classes, but tower 1 differs"):
        soup([tower, other])
    with pytest.raises(ValueError, match="same targets and classes, but tower 1 differs"):
        ensemble_predict_proba([tower, other], [])
    with pytest.raises(ValueError, match="must have the same dim, got 8 at 0 and 4 at 1"):
        soup([tower, build(0, dim=4)])
    with pytest.raises(
        ValueError, match=r"must have the same spec, got .*resnet.* and .*vit.* at 1"
    ):
        soup([tower, build(0, "test_vit")])
