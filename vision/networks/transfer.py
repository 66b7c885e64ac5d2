"""Which parts of a backbone that has learned before are trained, when, and how fast."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vision.config import TransferConfig
from vision.errors import InvalidArgumentError
from vision.tower import VisionTower

# Where torchvision's and transformers' networks keep their layers, the outermost in a name.
LAYER = re.compile(
    r"(?:^|\.)(?:(?:layer|stage|block)\d+|Mixed_\w+|inception\w+"
    r"|(?:features|blocks|layers?|stages)\.(?:denseblock|encoder_layer_)?\d+)(?=\.)"
)


def backbone_stages(network: nn.Module) -> list[list[str]]:
    """Return names of parameters in stages, from the picture to the features.

    Each parameter is in one stage. For timm's networks they are timm's own coarse groups: stem,
    stages or blocks, and what follows them. For others a stage is a layer of the network's
    outermost list of layers; what comes before the first layer (embeddings, the stem) is a stage of
    its own, and anything else is of the layer that it follows.
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
    """Let the weights of the backbone learn that are to in this epoch, and no others of it.

    With ``unfreeze_epochs`` it is gradual unfreezing (Howard and Ruder, 2018,
    https://arxiv.org/abs/1801.06146) by stages, with any number of epochs between two of them. Of
    a backbone with LoRA only the low-rank updates are ever released.

    Raises:
        InvalidArgumentError: If there are fewer stages than are to be frozen.
    """
    parameters = dict(tower.backbone.named_parameters())
    stages = _learning_stages(tower.backbone, transfer)
    frozen = _frozen_stages(len(stages), transfer, epoch)
    for stage, names in enumerate(stages):
        for name in names:
            parameters[name].requires_grad_(stage >= frozen)


def fix_norms(tower: VisionTower, transfer: TransferConfig) -> None:
    """Keep the statistics of batch norms whose weights are frozen, or of all the backbone's.

    To be called whenever the tower was set to training, after ``freeze_stages``.
    """
    for norm in tower.backbone.modules():
        # Those that see the rows of several processes have no other class in common.
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
    """Return AdamW's groups of the weights that are trained at any time in the run.

    Vectors, which are norms and biases, are not decayed. The rate of a stage is ``layer_decay``
    times that of the next, and full in the projection and the heads, as by Clark et al. (2020,
    https://arxiv.org/abs/2003.10555), who decay by layers. Stages that a later epoch releases are
    there from the start: AdamW passes over weights without a gradient.

    Args:
        tower: Its backbone, projection and heads.
        transfer: What is frozen, and the decay of rates.
        extra: Weights outside of the tower, such as proxies; learned at the full rate.
        learning_rate: That of the projection and the heads.
        weight_decay: That of matrices.

    Raises:
        InvalidArgumentError: If there are fewer stages than are to be frozen.
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
    """Yield the weights that are ever trained, in the tower's order, and factors of their rates."""
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
    """Return the stages of weights that may learn: all, or LoRA's."""
    stages = backbone_stages(network)
    if transfer.lora_rank == 0:
        return stages
    return [[name for name in names if ".lora_" in name] for names in stages]


def _frozen_stages(count: int, transfer: TransferConfig, epoch: int | None) -> int:
    """Return how many of the stages are frozen in an epoch, or always where there is none."""
    kept = count if transfer.frozen_stages == "all" else transfer.frozen_stages
    if not 0 <= kept <= count:
        raise InvalidArgumentError(
            f"frozen_stages must be between 0 and {count} (the backbone's stages), "
            f'or "all", got {kept}'
        )
    if transfer.unfreeze_epochs is None or epoch is None:
        return kept
    return max(kept, count - epoch // transfer.unfreeze_epochs)
