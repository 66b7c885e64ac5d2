"""Layers of low rank: a convolution or a linear layer as two thin ones, one after the other."""

from collections.abc import Mapping

import torch
from torch import nn

from vision.errors import InvalidArgumentError

Layer = nn.Conv2d | nn.Linear


def thin_layers(layer: Layer, rank: int) -> nn.Sequential:
    """Return two layers that take and give what this one does, through ``rank`` channels.

    A k x k convolution becomes a k x k convolution to ``rank`` channels and a 1 x 1 convolution
    from them. Their values are whatever the memory holds.
    """
    # Built without values, for which torch would draw random numbers.
    with torch.device("meta"):
        thin = nn.Sequential(*_pair(layer, rank))
    return thin.to_empty(device=layer.weight.device).train(layer.training)


def replace_layers(network: nn.Module, ranks: Mapping[str, int]) -> None:
    """Replace layers by thin ones, in place.

    Args:
        network: A backbone.
        ranks: Rank by a layer's path in it.

    Raises:
        InvalidArgumentError: If there is no convolution or linear layer at a path.
    """
    for path, rank in ranks.items():
        try:
            layer = network.get_submodule(path)
        except AttributeError as error:
            raise InvalidArgumentError(
                f"ranks must name layers of the network, got {path!r}"
            ) from error
        if not isinstance(layer, Layer):
            kind = type(layer).__name__
            raise InvalidArgumentError(
                f"ranks must name convolutions and linear layers, {path!r} is {kind}"
            )
        network.set_submodule(path, thin_layers(layer, rank))


def _pair(layer: Layer, rank: int) -> tuple[Layer, Layer]:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return (
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features, bias=bias),
        )
    narrow = nn.Conv2d(
        layer.in_channels,
        rank,
        layer.kernel_size,  # type: ignore[arg-type]  # typed wider than it is
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=False,
        padding_mode=layer.padding_mode,
    )
    return narrow, nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
