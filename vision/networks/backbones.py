"""Networks from pictures to features, built by name: timm, torchvision and transformers."""

import inspect
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field
from timm.models import load_state_dict_from_hf
from torch import Tensor, nn
from transformers import AutoConfig

from vision.errors import InvalidArgumentError
from vision.networks.low_rank import replace_layers
from vision.networks.packages import Origin
from vision.networks.published import load_published
from vision.networks.torchvision_network import build_torchvision
from vision.networks.transformers_network import TransformersNetwork, build_transformers
from vision.networks.weights import (
    UNREACHABLE,
    State,
    find_local,
    find_origin,
    find_package,
    load_local,
    load_state,
    not_found,
)
from vision.transforms import Fit, Preprocess


class BackboneSpec(BaseModel):
    """Everything that is needed to build the same network again, except its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name that was passed to build_backbone.")
    size: int = Field(description="Height and width of the input in pixels.")
    drop_path: float = Field(default=0.0, description="Rate of stochastic depth.")
    ranks: dict[str, int] = Field(
        default_factory=dict, description="Ranks of factorised layers, by their paths."
    )
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="Configuration of a transformers network; null for other libraries.",
    )
    pooler: bool = Field(
        default=True, description="Whether a transformers network keeps its pooler, if it has one."
    )
    weights: Origin | None = Field(
        default=None,
        description="Weights that training began with; null for random ones, and for towers of "
        "earlier releases.",
    )


class Backbone(NamedTuple):
    """A network, its feature size and the preparation of its pictures."""

    network: nn.Module  # (B, 3, H, W) -> features (B, F)
    dim: int  # F
    preprocess: Preprocess
    spec: BackboneSpec
    projection: Tensor | None = None  # (D, F) of a checkpoint with a space for pictures and texts


def build_backbone(
    name: str,
    *,
    pretrained: bool | str = False,
    size: int = 128,
    fit: Fit = "stretch",
    drop_path: float = 0.0,
) -> Backbone:
    """Return the network with this name, without its classifier.

    Args:
        name: A timm name such as ``resnet18``, ``torchvision/resnet18``, or ``transformers/``
            followed by a hub id or local folder. Of CLIP and SigLIP only the vision part is built.
        pretrained: Weights to load. False is random weights, for which the caller sets
            ``torch.manual_seed``. True is the published weights: those of a package in
            ``vision.networks.published`` where it is installed, else they are downloaded once. A
            string is a ``.safetensors`` file, a folder with ``model.safetensors``, or a hub id.
        size: Height and width of the input in pixels.
        fit: Way to make a picture square.
        drop_path: Rate of stochastic depth. It replaces the default of the library.

    Raises:
        InvalidArgumentError: If the name is unknown, or ``drop_path`` is above 0 for a network
            without stochastic depth.
        WeightsError: If the weights are not on this machine and cannot be downloaded, or a package
            with weights is of another version or was changed.
    """
    library, _, rest = name.partition("/")
    spec = BackboneSpec(name=name, size=size, drop_path=drop_path)
    wanted = Preprocess(size=size, fit=fit)
    network: nn.Module
    if library == "transformers":
        network, preprocess = build_transformers(rest, pretrained, wanted, drop_path)
        architecture = network.network.config.to_dict()
        spec = spec.model_copy(update={"architecture": architecture, "pooler": network.pooler})
    elif library == "torchvision":
        network, preprocess = build_torchvision(rest, pretrained, wanted, drop_path)
    else:
        network, preprocess = _build_timm(name, pretrained, wanted, drop_path)
    spec = spec.model_copy(update={"weights": find_origin(name, pretrained)})
    published = network.projection if isinstance(network, TransformersNetwork) else None
    return _measured(network, preprocess, spec)._replace(projection=published)


def restore_backbone(spec: BackboneSpec, preprocess: Preprocess) -> Backbone:
    """Return the network of a saved spec with random weights, without a download.

    Args:
        spec: Specification that ``build_backbone`` returned.
        preprocess: Preparation of pictures that was saved with it.
    """
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
    """Recompute the activations of a network for the gradient instead of keeping them in memory.

    Activation checkpointing (Chen et al., 2016, https://arxiv.org/abs/1604.06174), at the places
    that the library chose. Gradients are the same. Batch norms see each batch twice, so their
    running statistics follow the latest batches more closely.

    Raises:
        InvalidArgumentError: If the network does not support it.
    """
    enable: Any = getattr(network, "set_grad_checkpointing", None)
    try:
        # Where it is not supported, timm fails an assertion and transformers raises ValueError.
        if enable is None:
            raise InvalidArgumentError("its library has no checkpointing for it")
        enable()
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
    package = find_package(name) if pretrained is True else None
    fetch = pretrained is True and package is None
    try:
        network = timm.create_model(name, pretrained=fetch, **options)
    except TypeError as error:
        raise InvalidArgumentError(
            f"backbone {name!r} does not take {sorted(options)}: {error}"
        ) from error
    except (*UNREACHABLE, RuntimeError) as error:
        raise not_found(name, pretrained) from error
    if package is not None:
        load_published(network, *package)
    if isinstance(pretrained, str):
        _load_named(network, name, pretrained)
    if published is None:
        return network, wanted
    # Random weights are not tied to a filter, and the default filter is the sharpest.
    filtered = published.interpolation if pretrained else wanted.interpolation
    return network, Preprocess(
        size=wanted.size,
        mean=published.mean,
        std=published.std,
        interpolation=filtered,
        fit=wanted.fit,
    )


def _load_named(network: nn.Module, name: str, pretrained: str) -> None:
    """Load weights from a local file, a local folder or a hub id."""
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
    """Return weights converted by timm: older layouts, and position embeddings of another size."""
    convert = getattr(inspect.getmodule(type(network)), "checkpoint_filter_fn", None)
    converted: State = state if convert is None else convert({**state}, network)
    return converted


def try_size(network: nn.Module, side: int, name: str) -> Tensor:
    """Return the features of one black picture (1, 3, side, side).

    Args:
        network: Network to try.
        side: Height and width of the picture in pixels.
        name: Name of the network, for the error message.

    Raises:
        InvalidArgumentError: If the network does not accept pictures of this size.
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
    """Return the backbone with its feature size, which is measured by one small pass.

    The attributes of the libraries are wrong for networks with layers between pooling and
    classifier.
    """
    features = try_size(network, preprocess.size, spec.name)
    if features.ndim != 2:
        raise InvalidArgumentError(
            f"backbone {spec.name!r} must return features (B, F), got {tuple(features.shape)}"
        )
    return Backbone(network.train(), features.shape[1], preprocess, spec)
