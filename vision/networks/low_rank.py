"""Low-rank layers: a convolution or linear layer replaced by a sequence of two thin ones."""

from collections.abc import Mapping

import torch
from torch import nn

from vision.errors import InvalidArgumentError

Layer = nn.Conv2d | nn.Linear


def thin_layers(layer: Layer, rank: int) -> nn.Sequential:
    """Return two layers with the input and output of this one and ``rank`` channels in between.

    A k x k convolution becomes a k x k convolution to ``rank`` channels followed by a 1 x 1
    convolution. The weights are not initialised.
    """
    # Layers on the meta device draw no random numbers for their weights.
    with torch.device("meta"):
        thin = nn.Sequential(*_pair(layer, rank))
    return thin.to_empty(device=layer.weight.device).train(layer.training)


def replace_layers(network: nn.Module, ranks: Mapping[str, int]) -> None:
    """Replace layers of a network by thin ones, in place.

    Args:
        network: Network to change.
        ranks: Ranks of the layers, by their paths in the network.

    Raises:
        InvalidArgumentError: If a path does not lead to a convolution or linear layer.
    """
    for path, rank in ranks.items():
        try:
            layer = network.get_submodule(path)
        except AttributeError as error:
            raise InvalidArgumentError(
                f"ranks must have paths of layers in the network, got {path!r}"
            ) from error
        if not isinstance(layer, Layer):
            kind = type(layer).__name__
            raise InvalidArgumentError(
                f"ranks must have paths of convolutions and linear layers, but {path!r} is a {kind}"
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
