"""Choose which weights of a pretrained encoder are trained."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from text.config import TransferConfig
from text.encoder import TextEncoder
from text.errors import InvalidArgumentError, MissingExtraError


def stages(backbone: PreTrainedModel) -> list[list[str]]:
    """Return the names of the backbone's parameters, grouped into stages from input to output.

    The first stage is everything before the layers, such as word embeddings. Each layer is one
    more stage, and the last one includes what follows the layers, such as a norm. A backbone
    without a list of layers is one stage.
    """
    count = int(getattr(backbone.config, "num_hidden_layers", 0))
    lists = (
        path
        for path, part in backbone.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == count > 0
    )
    layers = next(lists, None)
    found: list[list[str]] = [[]]
    current = None
    for name, _ in backbone.named_parameters():
        if layers is not None and name.startswith(f"{layers}."):
            layer = name.removeprefix(f"{layers}.").partition(".")[0]
            if layer != current:
                found.append([])
                current = layer
        found[-1].append(name)
    return found


def restrict_learning(encoder: TextEncoder, transfer: TransferConfig) -> None:
    """Freeze the first stages of the backbone, or everything except added low-rank updates.

    The low-rank updates are LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685), computed by
    peft. They are added to every linear layer, where the paper has them for queries and values.
    The encoder is changed in place, and its embeddings are the same until it is trained.

    Args:
        encoder: Encoder to change.
        transfer: Number of frozen stages, or rank of the updates.

    Raises:
        InvalidArgumentError: If the backbone has fewer stages, if every weight would be frozen, or
            if it lacks a layer to update.
        MissingExtraError: If low-rank updates are wanted and peft is not installed.
    """
    if transfer.lora_rank:
        _add_lora(encoder, transfer)
        return
    found = stages(encoder.backbone)
    frozen = len(found) if transfer.frozen_stages == "all" else transfer.frozen_stages
    if frozen > len(found):
        raise InvalidArgumentError(
            f"frozen_stages must be at most {len(found)} (the word embeddings and the layers), "
            f'or "all", got {frozen}'
        )
    if frozen == len(found) and not encoder.dense_layers:
        raise InvalidArgumentError(
            f"frozen_stages = {transfer.frozen_stages} freezes every weight: set dim to another "
            f"size than the checkpoint's {encoder.dim} to train a projection, or epochs = 0 to "
            "keep the encoder as it is"
        )
    parameters = dict(encoder.backbone.named_parameters())
    for name in (name for stage in found[:frozen] for name in stage):
        parameters[name].requires_grad_(False)


def merge_lora(encoder: TextEncoder) -> None:
    """Add low-rank updates, if there are any, to the backbone's weights, in place.

    The layers of peft are removed, and all weights can be trained again.
    """
    for path, layer in list(encoder.backbone.named_modules()):
        if hasattr(layer, "get_base_layer"):
            adapted: Any = layer
            adapted.merge(safe_merge=True)
            encoder.backbone.set_submodule(path, adapted.get_base_layer())
    vars(encoder.backbone).pop("peft_config", None)
    encoder.requires_grad_(True)


def _add_lora(encoder: TextEncoder, transfer: TransferConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("LoRA needs peft: pip install 'vitrine-recsys[lora]'") from error
    modules = encoder.backbone.named_modules()
    layers = [path for path, part in modules if isinstance(part, nn.Linear)]
    if not layers:
        raise InvalidArgumentError(
            f"lora_rank = {transfer.lora_rank} needs an encoder with linear layers, but this one "
            "has only word embeddings: name a checkpoint, set layers, or set lora_rank = 0"
        )
    config = LoraConfig(r=transfer.lora_rank, lora_alpha=transfer.lora_alpha, target_modules=layers)
    inject_adapter_in_model(config, encoder.backbone)
