"""Smaller towers: weights set to zero, or layers replaced by two thinner ones."""

import copy
from typing import cast

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from vision.errors import InvalidArgumentError
from vision.networks.low_rank import Layer, thin_layers
from vision.tower import VisionTower


def prune(tower: VisionTower, amount: float) -> VisionTower:
    """Return a copy with the smallest weights of the backbone set to zero.

    Global magnitude pruning (Han et al., 2015, https://arxiv.org/abs/1506.02626) in one step,
    without further training. All convolutions and linear layers share one threshold, and biases and
    norms are kept. The file is not smaller and the tower not faster by itself: that needs a
    compressed format or a runtime that makes use of zeros.

    Args:
        tower: Tower to prune. It is not changed.
        amount: Share of the weights that become zero, at least 0 and below 1.

    Raises:
        InvalidArgumentError: If the amount is out of range.
    """
    if not 0 <= amount < 1:
        raise InvalidArgumentError(f"amount must be at least 0 and below 1 (a share), got {amount}")
    # torch views all weights as one vector, which the layout channels_last does not allow.
    pruned = copy.deepcopy(tower).to(memory_format=torch.contiguous_format)
    weights = [(layer, "weight") for layer in _layers(pruned)]
    torch_prune.global_unstructured(
        weights, pruning_method=torch_prune.L1Unstructured, amount=amount
    )
    for layer, name in weights:
        torch_prune.remove(layer, name)
    return pruned.to(memory_format=torch.channels_last)


def sparsity(tower: VisionTower) -> float:
    """Return the share of zeros in the backbone's convolutions and linear layers, 0 to 1."""
    weights = [layer.weight for layer in _layers(tower)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, sum(weight.numel() for weight in weights))


def factorise(tower: VisionTower, energy: float) -> VisionTower:
    """Return a copy with layers of the backbone replaced by two thinner ones where that is smaller.

    Low-rank factorisation by singular value decomposition (Denton et al., 2014,
    https://arxiv.org/abs/1404.0736), without further training. A k x k convolution becomes a k x k
    convolution to r channels followed by a 1 x 1 convolution. A linear layer becomes two linear
    layers. The spec of the copy has the ranks, so it is saved and loaded like any other tower.

    Args:
        tower: Tower to factorise. It is not changed.
        energy: Share of a layer's squared singular values that its rank r must keep, above 0 and at
            most 1.

    Raises:
        InvalidArgumentError: If the energy is out of range.
    """
    if not 0 < energy <= 1:
        raise InvalidArgumentError(f"energy must be above 0 and at most 1 (a share), got {energy}")
    factorised = copy.deepcopy(tower)
    ranks = {}
    for path, layer in list(factorised.backbone.named_modules()):
        # Subclasses are kept, because they or their owners use the weight in other ways as well.
        if type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1):
            found = _factors(layer, energy)
            if found is not None:
                thin, ranks[path] = found
                factorised.backbone.set_submodule(path, thin)
    factorised.spec = tower.spec.model_copy(update={"ranks": ranks})
    return factorised.to(memory_format=torch.channels_last)


def _layers(tower: VisionTower) -> list[nn.Conv2d | nn.Linear]:
    return [layer for layer in tower.backbone.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def _factors(layer: nn.Conv2d | nn.Linear, energy: float) -> tuple[nn.Sequential, int] | None:
    """Return two layers that approximate this one and their rank, or None if they are larger."""
    matrix = layer.weight.flatten(1)  # (O, K), where K is I, or I x k x k for a convolution
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = values.square().cumsum(0) / values.square().sum()
    # Rounding may leave the last sum slightly below 1.
    rank = min(int((kept < energy).sum()) + 1, len(values))
    if rank * sum(matrix.shape) >= matrix.numel():
        return None
    thin = thin_layers(layer, rank)
    first, second = cast(tuple[Layer, Layer], tuple(thin))
    first.weight.copy_(right[:rank].view_as(first.weight))
    second.weight.copy_((left[:, :rank] * values[:rank]).view_as(second.weight))
    if layer.bias is not None and second.bias is not None:
        second.bias.copy_(layer.bias)
    return thin, rank
