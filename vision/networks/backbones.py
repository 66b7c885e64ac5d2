"""Networks that turn pictures into features, by name, from timm, torchvision and transformers."""

import inspect
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, NamedTuple

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field
from timm.models import load_state_dict_from_hf
from torch import Tensor, nn
from transformers import AutoConfig

from vision.errors import InvalidArgumentError
from vision.networks.low_rank import replace_layers
from vision.networks.torchvision_network import build_torchvision
from vision.networks.transformers_network import TransformersNetwork, build_transformers
from vision.networks.weights import (
    UNREACHABLE,
    State,
    find_local,
    load_local,
    load_state,
    not_found,
)
from vision.transforms import Preprocess

Fit = Literal["stretch", "crop"]


class BackboneSpec(BaseModel):
    """All that is needed to build the same network again, without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name as given to build_backbone.")
    size: int = Field(description="Height and width of the input in pixels.")
    drop_path: float = Field(default=0.0, description="Stochastic depth.")
    ranks: dict[str, int] = Field(
        default_factory=dict, description="Ranks of layers that were factorised, by their path."
    )
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="A transformers network's configuration; else no need.",
    )
    pooler: bool = Field(
        default=True, description="Whether a transformers network keeps the pooler it may have."
    )


class Backbone(NamedTuple):
    """A network and what its user has to know about it."""

    network: nn.Module  # (B, 3, H, W) -> features (B, F)
    dim: int  # F
    preprocess: Preprocess
    spec: BackboneSpec


def build_backbone(
    name: str,
    *,
    pretrained: bool | str = False,
    size: int = 128,
    fit: Fit = "stretch",
    drop_path: float = 0.0,
) -> Backbone:
    """Return the network of that name without its classifier.

    Args:
        name: ``resnet18`` (any timm name), ``torchvision/resnet18``, or ``transformers/`` and a hub
            id or a local folder (CLIP, SigLIP, DINOv2, ViT: only the vision part is built).
        pretrained: False for random weights (a seed is the caller's ``torch.manual_seed``); True
            for the published ones, downloaded once where there is a network; or a local
            ``.safetensors`` file, a folder holding ``model.safetensors``, or a hub id.
        size: Height and width of the input in pixels.
        fit: How a picture is made square.
        drop_path: Rate of stochastic depth, in place of the one that the library has it at.

    Raises:
        InvalidArgumentError: If there is no such network, or it has no stochastic depth and is to
            have some.
        WeightsError: If the weights are not on this machine and cannot be fetched.
    """
    library, _, rest = name.partition("/")
    spec = BackboneSpec(name=name, size=size, drop_path=drop_path)
    wanted = Preprocess(size=size, fit=fit)
    if library == "transformers":
        network, preprocess = build_transformers(rest, pretrained, wanted, drop_path)
        architecture = network.network.config.to_dict()
        spec = spec.model_copy(update={"architecture": architecture, "pooler": network.pooler})
        return _measured(network, preprocess, spec)
    if library == "torchvision":
        return _measured(*build_torchvision(rest, pretrained, wanted, drop_path), spec)
    return _measured(*_build_timm(name, pretrained, wanted, drop_path), spec)


def restore_backbone(spec: BackboneSpec, preprocess: Preprocess) -> Backbone:
    """Return the network of a saved spec with random weights; reads no file but the library's."""
    if spec.architecture is None:
        built = build_backbone(spec.name, size=spec.size, drop_path=spec.drop_path)
        network = built.network
    else:
        options = dict(spec.architecture)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        network = TransformersNetwork(config, pooler=spec.pooler)
    replace_layers(network, spec.ranks)
    return _measured(network, preprocess, spec)


def enable_recompute(network: nn.Module) -> None:
    """Recompute the network's activations for the gradient instead of keeping them.

    Checkpointing (Chen et al., 2016, https://arxiv.org/abs/1604.06174) as the library places it.
    Gradients are the same; batch norms see each batch twice, so their statistics forget faster.

    Raises:
        InvalidArgumentError: If the network cannot.
    """
    switch: Any = getattr(network, "set_grad_checkpointing", None)
    try:
        # timm asserts and transformers raises where it is not supported.
        if switch is None:
            raise InvalidArgumentError("its library has no checkpointing for it")
        switch()
    except (AssertionError, ValueError) as error:
        raise InvalidArgumentError(
            f"recompute must be false for backbone {type(network).__name__}: {error}"
        ) from error


def _build_timm(
    name: str, pretrained: bool | str, wanted: Preprocess, drop_path: float
) -> tuple[nn.Module, Preprocess]:
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=5)
        raise InvalidArgumentError(
            f"backbone must be a timm name, 'torchvision/NAME' or 'transformers/ID', got {name!r}; "
            f"similar timm names: {', '.join(close) or 'none'}"
        )
    published = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"num_classes": 0}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if published is not None and published.fixed_input_size:
        options["img_size"] = wanted.size
    try:
        network = timm.create_model(name, pretrained=pretrained is True, **options)
    except TypeError as error:
        raise InvalidArgumentError(
            f"backbone {name!r} does not take {sorted(options)}: {error}"
        ) from error
    except (*UNREACHABLE, RuntimeError) as error:
        raise not_found(name, pretrained) from error
    if isinstance(pretrained, str):
        _load_named(network, name, pretrained)
    if published is None:
        return network, wanted
    # Random weights have seen no picture yet: any filter is as good, and the default is sharpest.
    filtered = published.interpolation if pretrained else wanted.interpolation
    return network, Preprocess(
        size=wanted.size,
        mean=published.mean,
        std=published.std,
        interpolation=filtered,
        fit=wanted.fit,
    )


def _load_named(network: nn.Module, name: str, pretrained: str) -> None:
    """Load weights from a local file or folder, or of a hub id."""
    convert = partial(_as_timm, network)
    local = find_local(pretrained)
    if local is not None:
        load_local(network, local, convert)
        return
    try:
        state = load_state_dict_from_hf(pretrained, weights_only=True)
    except (*UNREACHABLE, RuntimeError) as error:
        raise not_found(name, pretrained) from error
    load_state(network, state, pretrained, convert)


def _as_timm(network: nn.Module, state: State) -> State:
    """Return weights as timm converts published ones: other layouts, positions at another size."""
    convert = getattr(inspect.getmodule(type(network)), "checkpoint_filter_fn", None)
    converted: State = state if convert is None else convert({**state}, network)
    return converted


def try_size(network: nn.Module, side: int, name: str) -> Tensor:
    """Return what the network, called ``name``, makes of one black picture (1, 3, side, side).

    Raises:
        InvalidArgumentError: If the network does not read pictures of this size.
    """
    was_training = network.training
    try:
        with torch.inference_mode():
            features: Tensor = network.eval()(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InvalidArgumentError(
            f"size {side} does not fit backbone {name!r}: {error}"
        ) from error
    finally:
        network.train(was_training)
    return features


def _measured(network: nn.Module, preprocess: Preprocess, spec: BackboneSpec) -> Backbone:
    """Return the backbone with the feature size that it has, as one small pass shows.

    The libraries' own attributes disagree for networks with layers between pooling and classifier.
    """
    features = try_size(network, preprocess.size, spec.name)
    if features.ndim != 2:
        raise InvalidArgumentError(
            f"backbone {spec.name!r} must give features (B, F), got {tuple(features.shape)}"
        )
    return Backbone(network.train(), features.shape[1], preprocess, spec)
