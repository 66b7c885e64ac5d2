"""LoRA: low-rank updates of the attention layers, trained instead of their weights."""

from typing import Any

import torch
from torch import nn

from vision.errors import InvalidArgumentError, MissingExtraError

# Names of the linear layers of an attention in timm, torchvision and transformers.
PROJECTIONS = {
    *("q", "k", "v", "kv", "qkv", "proj"),
    *("query", "key", "value", "dense"),
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
}


def add_lora(network: nn.Module, *, rank: int, alpha: float, size: int) -> nn.Module:
    """Return the network with trainable low-rank updates of its attention and all else frozen.

    LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685) from the library peft. It updates all
    projections of the attention, while the paper updates queries and values only. The network is
    changed in place, and its features are the same until the updates are trained.

    Args:
        network: Transformer from (B, 3, H, W) to (B, F).
        rank: Rank of every update.
        alpha: Scale of the updates, which are multiplied by ``alpha / rank``.
        size: Height and width of the input in pixels.

    Raises:
        InvalidArgumentError: If the network has no attention that can be updated.
        MissingExtraError: If peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("LoRA needs peft: pip install 'vitrine-recsys[lora]'") from error
    targets = _attention_layers(network)
    if not targets:
        raise InvalidArgumentError(
            f"lora_rank = {rank} needs a backbone with attention, such as a ViT; "
            f"{type(network).__name__} has none: set lora_rank = 0"
        )
    configure: Any = LoraConfig  # alpha may be a float, but is typed as an int
    config = configure(r=rank, lora_alpha=alpha, target_modules=targets)
    inject_adapter_in_model(config, network)
    _refuse_unused(network, size)
    return network


def merge_lora(network: nn.Module) -> nn.Module:
    """Return the network with its low-rank updates added to its weights, and peft's layers removed.

    The network is changed in place and all its weights become trainable.
    """
    # peft is installed, because add_lora has raised an error otherwise.
    from peft.tuners.lora.layer import LoraLayer, MultiheadAttention

    for path, layer in list(network.named_modules()):
        # torch's attention merges the update of its own output projection.
        if not isinstance(layer, LoraLayer) or ".base_layer." in path:
            continue
        if isinstance(layer, MultiheadAttention):
            plain: nn.Module = layer.unload_and_optionally_merge_module(
                merge=True, safe_merge=True, adapter_names=None
            )
        else:
            layer.merge(safe_merge=True)
            plain = layer.get_base_layer()
        network.set_submodule(path, plain)
    vars(network).pop("peft_config", None)
    return network.requires_grad_(True)


def _attention_layers(network: nn.Module) -> list[str]:
    """Return the paths of torch's attention modules and of the projections of all others."""
    modules = dict(network.named_modules())
    whole = [path for path, part in modules.items() if isinstance(part, nn.MultiheadAttention)]
    projections = [
        path
        for path, part in modules.items()
        if isinstance(part, nn.Linear)
        and "att" in path
        and path.rpartition(".")[2] in PROJECTIONS
        and not any(path.startswith(f"{outer}.") for outer in whole)
    ]
    return whole + projections


def _refuse_unused(network: nn.Module, size: int) -> None:
    """Raise if an update has no effect on the features, which one small pass shows.

    Some attentions read the weight of a layer without calling the layer, and so skip its update.
    """
    updates = {name: part for name, part in network.named_parameters() if part.requires_grad}
    device = next(iter(updates.values())).device
    was_training = network.training
    features = network.eval()(torch.zeros(1, 3, size, size, device=device))
    network.train(was_training)
    unused = list(updates)
    if features.requires_grad:
        found = torch.autograd.grad(features.sum(), list(updates.values()), allow_unused=True)
        unused = [name for name, gradient in zip(updates, found, strict=True) if gradient is None]
    if unused:
        raise InvalidArgumentError(
            f"lora_rank must be 0 for {type(network).__name__}, whose attention does not call "
            f"{len(unused) // 2} of the layers to be updated, the first is "
            f"{unused[0].partition('.lora_')[0]!r}"
        )
