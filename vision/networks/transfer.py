"""Transfer learning: which parts of a pretrained backbone are trained, when, and how fast."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vision.config import TransferConfig
from vision.errors import InvalidArgumentError
from vision.tower import VisionTower

# Names of the outermost layers in the networks of torchvision and transformers.
LAYER = re.compile(
    r"(?:^|\.)(?:(?:layer|stage|block)\d+|Mixed_\w+|inception\w+"
    r"|(?:features|blocks|layers?|stages)\.(?:denseblock|encoder_layer_)?\d+)(?=\.)"
)


def backbone_stages(network: nn.Module) -> list[list[str]]:
    """Return the names of all parameters, grouped in stages from the picture to the features.

    Each parameter is in one stage. The stages of a timm network are timm's own coarse groups: the
    stem, the stages or blocks, and everything after them. In other networks a stage is one layer of
    the outermost list of layers. Parameters before the first layer (embeddings, stem) are a stage
    of their own, and any other parameter belongs to the layer before it.
    """
    matcher: Any = getattr(network, "group_matcher", None)
    if matcher is not None:
        groups = group_parameters(network, matcher(coarse=True))
        return [groups[order] for order in sorted(groups)]
    stages: dict[str, list[str]] = {}
    layer = ""
    for name, _ in network.named_parameters():
        found = LAYER.search(name)
        layer = name[: found.end()] if found else layer
        stages.setdefault(layer, []).append(name)
    return list(stages.values())


def freeze_stages(tower: VisionTower, transfer: TransferConfig, epoch: int) -> None:
    """Freeze the stages of the backbone that are not trained in this epoch, and release the others.

    With ``unfreeze_epochs`` this is gradual unfreezing (Howard and Ruder, 2018,
    https://arxiv.org/abs/1801.06146) by stages, with any number of epochs between two stages. In a
    backbone with LoRA only the low-rank updates are ever released.

    Args:
        tower: Tower whose backbone is changed.
        transfer: Number of frozen stages, and the epochs between releases.
        epoch: Epoch that is about to start, from 0.

    Raises:
        InvalidArgumentError: If ``frozen_stages`` exceeds the number of stages.
    """
    parameters = dict(tower.backbone.named_parameters())
    stages = _learning_stages(tower.backbone, transfer)
    frozen = _frozen_stages(len(stages), transfer, epoch)
    for stage, names in enumerate(stages):
        for name in names:
            parameters[name].requires_grad_(stage >= frozen)


def fix_norms(tower: VisionTower, transfer: TransferConfig) -> None:
    """Fix the statistics of batch norms with frozen weights, or of all with ``freeze_norms``.

    Must be called after ``freeze_stages`` whenever the tower was set to training mode.

    Args:
        tower: Tower whose backbone is changed.
        transfer: Whether to fix all batch norms.
    """
    for norm in tower.backbone.modules():
        # The only base class that ordinary and synchronised batch norms have in common.
        if isinstance(norm, _BatchNorm):
            frozen = norm.affine and not norm.weight.requires_grad
            if frozen or transfer.freeze_norms:
                norm.eval()


def parameter_groups(
    tower: VisionTower,
    transfer: TransferConfig,
    extra: Iterable[nn.Parameter] = (),
    *,
    learning_rate: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups for all weights that are trained at any time in the run.

    Vectors, which are norms and biases, have no weight decay. The learning rate of a stage is
    ``layer_decay`` times that of the next stage, and projection and heads have the full rate. Clark
    et al. (2020, https://arxiv.org/abs/2003.10555) decay by layers instead. Stages that are
    released later are included from the start, because AdamW skips weights without a gradient.

    Args:
        tower: Tower to train.
        transfer: Number of frozen stages, and the decay of learning rates.
        extra: Weights outside the tower, such as proxies, which get the full learning rate.
        learning_rate: Learning rate of the projection and the heads.
        weight_decay: Weight decay of matrices.

    Raises:
        InvalidArgumentError: If ``frozen_stages`` exceeds the number of stages.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for weight, factor in _trained(tower, transfer, extra):
        groups.setdefault((learning_rate * factor, weight.ndim > 1), []).append(weight)
    # Highest rate first, and matrices before vectors.
    return [
        {"params": groups[key], "lr": key[0], "weight_decay": weight_decay if key[1] else 0.0}
        for key in sorted(groups, reverse=True)
    ]


def _trained(
    tower: VisionTower, transfer: TransferConfig, extra: Iterable[nn.Parameter]
) -> Iterator[tuple[nn.Parameter, float]]:
    """Yield all weights that are ever trained, in the order of the tower, with rate factors."""
    stages = _learning_stages(tower.backbone, transfer)
    count = len(stages)
    factors: dict[str, float] = {}
    for stage in range(_frozen_stages(count, transfer, epoch=None), count):
        names = (f"backbone.{name}" for name in stages[stage])
        factors |= dict.fromkeys(names, transfer.layer_decay ** (count - stage))
    for name, weight in tower.named_parameters():
        if name in factors:
            yield weight, factors[name]
        elif weight.requires_grad and not name.startswith("backbone."):
            yield weight, 1.0
    yield from ((weight, 1.0) for weight in extra if weight.requires_grad)


def _learning_stages(network: nn.Module, transfer: TransferConfig) -> list[list[str]]:
    """Return the names of trainable weights in each stage: all weights, or those of LoRA."""
    stages = backbone_stages(network)
    if transfer.lora_rank == 0:
        return stages
    return [[name for name in names if ".lora_" in name] for names in stages]


def _frozen_stages(count: int, transfer: TransferConfig, epoch: int | None) -> int:
    """Return the number of stages frozen in an epoch, or in all epochs if it is None."""
    kept = count if transfer.frozen_stages == "all" else transfer.frozen_stages
    if not 0 <= kept <= count:
        raise InvalidArgumentError(
            f"frozen_stages must be between 0 and {count} (the backbone's stages), "
            f'or "all", got {kept}'
        )
    if transfer.unfreeze_epochs is None or epoch is None:
        return kept
    return max(kept, count - epoch // transfer.unfreeze_epochs)
