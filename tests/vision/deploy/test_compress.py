"""Pruned towers have the wanted zeros, and factorised ones fewer weights and similar outputs."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vision import checkpoint
from vision.deploy.compress import factorise, prune, sparsity
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build_tower(name: str = "test_resnet") -> VisionTower:
    torch.manual_seed(0)
    tower = VisionTower(build_backbone(name, size=32), dim=8, classes={"a": ["x", "y"]})
    # Batch norms need the statistics of a trained network, or all embeddings would be the same.
    tower.train()
    with torch.no_grad():
        for _ in range(10):
            tower(torch.randn(8, 3, 32, 32))
    return tower.eval()


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    return build_tower()


def parameters(tower: VisionTower) -> int:
    return sum(value.numel() for value in tower.parameters())


def weights(tower: VisionTower) -> Tensor:
    """Return all weights that can be pruned."""
    modules = tower.backbone.modules()
    layers = [layer for layer in modules if isinstance(layer, nn.Conv2d | nn.Linear)]
    return torch.cat([layer.weight.flatten() for layer in layers])


def test_pruning_zeroes_the_smallest_weights_of_the_whole_backbone(tower: VisionTower) -> None:
    before = copy.deepcopy(tower.state_dict())
    pruned = prune(tower, 0.6)
    assert sparsity(pruned) == pytest.approx(0.6, abs=1e-4)
    assert sparsity(tower) < 0.01
    old, new = weights(tower), weights(pruned)
    threshold = old.abs().sort().values[round(0.6 * len(old)) - 1]
    torch.testing.assert_close(new, torch.where(old.abs() > threshold, old, 0.0), atol=0, rtol=0)
    for name, value in tower.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_pruning_by_0_changes_nothing(tower: VisionTower) -> None:
    torch.testing.assert_close(prune(tower, 0.0)(IMAGES), tower(IMAGES), atol=0, rtol=0)


def test_a_pruned_tower_is_saved_and_loaded(tower: VisionTower, tmp_path: Path) -> None:
    pruned = prune(tower, 0.3)
    checkpoint.save(pruned, tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert sparsity(loaded) == sparsity(pruned)
    torch.testing.assert_close(loaded(IMAGES), pruned(IMAGES))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_layers_of_low_rank_are_replaced_and_keep_their_output(name: str) -> None:
    tower = build_tower(name)
    with torch.no_grad():
        for layer in tower.backbone.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                matrix = layer.weight.flatten(1)
                left, right = matrix[:, :2], torch.randn(2, matrix.shape[1]) / 4
                layer.weight.copy_((left @ right).view_as(layer.weight))
    # All weights now have rank 2, up to rounding.
    thin = factorise(tower, 1 - 1e-6)
    assert parameters(thin) < 0.2 * parameters(tower)
    torch.testing.assert_close(thin(IMAGES), tower(IMAGES), atol=1e-3, rtol=0)


def test_the_rank_is_the_smallest_that_keeps_the_energy() -> None:
    tower = build_tower()
    values = torch.tensor([3.0, 2.0, 1.0, *[0.1] * 61])
    left, right = (torch.linalg.qr(torch.randn(64, 64)).Q for _ in range(2))
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.copy_(left @ torch.diag(values) @ right)
    tower.backbone = nn.Sequential(tower.backbone, nn.Linear(96, 64), layer)
    # The squares 9, 4 and 1 and 61 times 0.01 sum to 14.61. The first keeps 61.6 %, two keep
    # 89.0 %, three keep 95.8 % and six keep 96.03 %.
    for energy, rank in ((0.61, 1), (0.88, 2), (0.95, 3), (0.96, 6)):
        first, second = factorise(tower, energy).backbone.get_submodule("2").children()
        assert first.out_features == second.in_features == rank
        torch.testing.assert_close(second.bias, layer.bias)


def test_a_layer_that_would_grow_is_kept(tower: VisionTower) -> None:
    same = factorise(tower, 1.0)
    assert parameters(same) == parameters(tower)
    torch.testing.assert_close(same(IMAGES), tower(IMAGES))


def test_less_energy_gives_smaller_towers_with_larger_errors(tower: VisionTower) -> None:
    towers = [factorise(tower, energy) for energy in (0.99, 0.8, 0.4)]
    sizes = [parameters(thin) for thin in towers]
    errors = [(thin(IMAGES) - tower(IMAGES)).norm().item() for thin in towers]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert sizes[-1] < sizes[0]
    assert errors[0] < 0.5 * errors[-1]


def test_factorising_draws_no_random_numbers(tower: VisionTower) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    factorise(tower, 0.5)
    torch.testing.assert_close(torch.rand(1), expected, atol=0, rtol=0)


def test_a_factorised_tower_is_saved_and_loaded(tower: VisionTower, tmp_path: Path) -> None:
    thin = factorise(tower, 0.5).eval()
    checkpoint.save(thin, tmp_path)
    found = checkpoint.load(tmp_path)
    assert found.spec.ranks == thin.spec.ranks != {}
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(found(images), thin(images))


def test_shares_out_of_range_are_refused(tower: VisionTower) -> None:
    with pytest.raises(ValueError, match=r"amount must be at least 0 and below 1 .*, got 1.5"):
        prune(tower, 1.5)
    with pytest.raises(ValueError, match=r"energy must be above 0 and at most 1 .*, got 0"):
        factorise(tower, 0)
