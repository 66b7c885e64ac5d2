"""Networks that turn pictures into features, by name, from timm, torchvision and transformers."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import timm
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PretrainedConfig

from vision.errors import WeightsError
from vision.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from vision.weights import UNREACHABLE, find_local, load_local, not_found

Fit = Literal["stretch", "crop"]


class BackboneSpec(BaseModel):
    """All that is needed to build the same network again, without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name as given to build_backbone.")
    size: int = Field(description="Height and width of the input in pixels.")
    drop_path: float = Field(default=0.0, description="Stochastic depth.")
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="A transformers network's configuration; else no need.",
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
        drop_path: Stochastic depth rate; for timm networks that have it.

    Raises:
        ValueError: If there is no such network.
        WeightsError: If the weights are not on this machine and cannot be fetched.
    """
    library, _, rest = name.partition("/")
    spec = BackboneSpec(name=name, size=size, drop_path=drop_path)
    if library == "transformers":
        return _build_transformers(rest, pretrained, spec, fit)
    if library == "torchvision":
        return _build_torchvision(rest, pretrained, spec, fit)
    return _build_timm(name, pretrained, spec, fit)


def restore_backbone(spec: BackboneSpec, preprocess: Preprocess) -> Backbone:
    """Return the network of a saved spec with random weights; reads no file but the library's."""
    if spec.architecture is None:
        built = build_backbone(spec.name, size=spec.size, drop_path=spec.drop_path)
        return built._replace(preprocess=preprocess)
    options = dict(spec.architecture)
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    return _measured(_TransformersVision(config), preprocess, spec)


def _build_timm(name: str, pretrained: bool | str, spec: BackboneSpec, fit: Fit) -> Backbone:
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=5)
        raise ValueError(
            f"backbone must be a timm name, 'torchvision/NAME' or 'transformers/ID', got {name!r}; "
            f"similar timm names: {', '.join(close) or 'none'}"
        )
    published = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"num_classes": 0}
    if spec.drop_path:
        options["drop_path_rate"] = spec.drop_path
    if published is not None and published.fixed_input_size:
        options["img_size"] = spec.size
    local = find_local(pretrained)
    if isinstance(pretrained, str) and local is None:
        options["pretrained_cfg_overlay"] = {"hf_hub_id": pretrained}
    fetch = bool(pretrained) and local is None
    try:
        network = timm.create_model(name, pretrained=fetch, **options)
    except TypeError as error:
        raise ValueError(f"backbone {name!r} does not take {sorted(options)}: {error}") from error
    except (*UNREACHABLE, RuntimeError) as error:
        raise not_found(name, pretrained) from error
    load_local(network, local)
    preprocess = Preprocess(
        size=spec.size,
        mean=_rgb(published.mean if published else IMAGENET_MEAN),
        std=_rgb(published.std if published else IMAGENET_STD),
        fit=fit,
    )
    return _measured(network, preprocess, spec)


def _measured(network: nn.Module, preprocess: Preprocess, spec: BackboneSpec) -> Backbone:
    """Return the backbone with the feature size that it has, as one small pass shows.

    The libraries' own attributes disagree for networks with layers between pooling and classifier.
    """
    side = preprocess.size
    try:
        with torch.inference_mode():
            features = network.eval()(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(f"size {side} does not fit backbone {spec.name!r}: {error}") from error
    if features.ndim != 2:
        raise ValueError(
            f"backbone {spec.name!r} must give features (B, F), got {tuple(features.shape)}"
        )
    return Backbone(network.train(), features.shape[1], preprocess, spec)


def _rgb(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _build_torchvision(name: str, pretrained: bool | str, spec: BackboneSpec, fit: Fit) -> Backbone:
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"torchvision has no classification network {name!r}")
    local = find_local(pretrained)
    if isinstance(pretrained, str) and local is None:
        raise WeightsError(
            f"pretrained for torchvision must be true or a local file or folder, got {pretrained!r}"
        )
    try:
        weights = "DEFAULT" if pretrained is True else None
        network = torchvision.models.get_model(name, weights=weights)
    except OSError as error:
        raise not_found(f"torchvision/{name}", pretrained) from error
    _drop_classifier(network, name)
    load_local(network, local)
    return _measured(network, Preprocess(size=spec.size, fit=fit), spec)


def _drop_classifier(network: nn.Module, name: str) -> None:
    """Take out the last linear layer, which gives the 1,000 classes of ImageNet."""
    linears = [path for path, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linears:
        raise ValueError(f"torchvision network {name!r} does not end in a linear layer")
    parent, _, attribute = linears[-1].rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())


class _TransformersVision(nn.Module):
    """A transformers vision network that returns its pooled features (B, F)."""

    def __init__(self, config: PretrainedConfig, network: Any = None) -> None:
        super().__init__()
        models: Any = AutoModel
        self.network = models.from_config(config) if network is None else network

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, F) of images (B, 3, H, W): pooled, or the mean of the tokens."""
        output: Any = self.network(pixel_values=images)
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = output.last_hidden_state.mean(dim=1)
        return pooled.flatten(1)


def _build_transformers(
    source: str, pretrained: bool | str, spec: BackboneSpec, fit: Fit
) -> Backbone:
    weights = source if isinstance(pretrained, bool) else pretrained
    try:
        whole = AutoConfig.from_pretrained(source)
        # CLIP and SigLIP are text and vision networks in one; only one half is wanted.
        config = getattr(whole, "vision_config", whole)
        config.image_size = spec.size if not pretrained else config.image_size
        network = AutoModel.from_pretrained(weights, config=config) if pretrained else None
        processor: Any = AutoImageProcessor
        published = processor.from_pretrained(source) if pretrained else None
    except (*UNREACHABLE, ValueError) as error:
        raise not_found(f"transformers/{source}", pretrained) from error
    if config.image_size != spec.size:
        raise ValueError(
            f"size must be {config.image_size}, which the weights of {source!r} were trained at, "
            f"got {spec.size}"
        )
    preprocess = Preprocess(
        size=spec.size,
        mean=_rgb(published.image_mean if published else IMAGENET_MEAN),
        std=_rgb(published.image_std if published else IMAGENET_STD),
        fit=fit,
    )
    full_spec = spec.model_copy(update={"architecture": config.to_dict()})
    return _measured(_TransformersVision(config, network), preprocess, full_spec)
