"""Classification networks of torchvision, without their classifiers."""

from functools import partial
from typing import Any, Literal

import torchvision
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings
from torchvision.ops import StochasticDepth

from vision.errors import InvalidArgumentError, WeightsError
from vision.networks.weights import State, find_local, load_local, load_state, not_found
from vision.transforms import Preprocess

# Inception and GoogLeNet expect other means than those of ImageNet, and convert their input.
CONVERTING = ("inception_v3", "googlenet")


def build_torchvision(
    name: str, pretrained: bool | str, preprocess: Preprocess, drop_path: float
) -> tuple[nn.Module, Preprocess]:
    """Return the network, from (B, 3, H, W) to (B, F), and the preparation of its pictures.

    Args:
        name: Name of the network in torchvision.
        pretrained: Weights to load, see ``build_backbone``. Hub ids are not accepted.
        preprocess: Wanted size and fit of pictures.
        drop_path: Rate of stochastic depth, see ``build_backbone``.

    Raises:
        InvalidArgumentError: If the name is unknown, or ``drop_path`` is above 0 for a network
            without stochastic depth.
        WeightsError: If the weights are not on this machine and cannot be downloaded.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InvalidArgumentError(f"torchvision has no classification network {name!r}")
    local = find_local(pretrained)
    if isinstance(pretrained, str) and local is None:
        raise WeightsError(
            f"pretrained for torchvision must be true or a local file or folder, got {pretrained!r}"
        )
    fetch = pretrained is True
    try:
        network = _create(name, preprocess.size, "DEFAULT" if fetch else None)
    except OSError as error:
        raise not_found(f"torchvision/{name}", pretrained) from error
    if fetch and isinstance(network, VisionTransformer):
        network = _at_size(network, name, preprocess.size)
    _drop_classifiers(network, name)
    _set_drop_path(network, name, drop_path)
    if local is not None:
        load_local(network, local, partial(resampled, network))
    if not pretrained:
        return network, preprocess
    published = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return network, Preprocess(
        size=preprocess.size, fit=preprocess.fit, interpolation=published.interpolation.value
    )


def _create(name: str, size: int, weights: Literal["DEFAULT"] | None) -> nn.Module:
    options: dict[str, Any] = {}
    if name in CONVERTING:
        options["transform_input"] = True
        if weights is None:
            options["init_weights"] = True
    if name.startswith("vit_") and weights is None:
        options["image_size"] = size
    network: nn.Module = torchvision.models.get_model(name, weights=weights, **options)
    return network


def _set_drop_path(network: nn.Module, name: str, rate: float) -> None:
    """Scale the rates of stochastic depth so that the last layer has this rate.

    Rates rise from layer to layer as in torchvision. Some of its builders accept the rate as an
    option, but those of Swin and MaxViT do not.
    """
    layers = [part for part in network.modules() if isinstance(part, StochasticDepth)]
    if rate and not layers:
        raise InvalidArgumentError(
            f"drop_path must be 0 for 'torchvision/{name}', which has no stochastic depth, "
            f"got {rate}"
        )
    highest = max((layer.p for layer in layers), default=0.0)
    for layer in layers:
        layer.p *= rate / highest


def _at_size(published: VisionTransformer, name: str, size: int) -> nn.Module:
    """Return the vision transformer for another picture size than its weights were trained at."""
    network = _create(name, size, None)
    load_state(network, published.state_dict(), name, partial(resampled, network))
    return network


def resampled(network: nn.Module, state: State) -> State:
    """Return weights with position embeddings resampled to the input size of the network.

    Args:
        network: Network that loads the weights. Only a vision transformer has position embeddings.
        state: Weights by name.
    """
    if not isinstance(network, VisionTransformer):
        return state
    fitting: State = interpolate_embeddings(network.image_size, network.patch_size, {**state})
    return fitting


def _drop_classifiers(network: Any, name: str) -> None:
    """Remove the last linear layer, which returns the 1,000 classes of ImageNet.

    The auxiliary classifiers of Inception and GoogLeNet, which are used in training, go as well.
    """
    for auxiliary in ("AuxLogits", "aux1", "aux2"):
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
            network.aux_logits = False
    linears = [path for path, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linears:
        raise InvalidArgumentError(f"torchvision network {name!r} does not end in a linear layer")
    network.set_submodule(linears[-1], nn.Identity())
