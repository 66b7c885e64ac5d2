"""Thin layers have the input and output shapes of the layers that they replace."""

import pytest
import torch
from torch import nn

from vision.networks.low_rank import replace_layers, thin_layers


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 8), (2, 6)),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), (2, 4, 9, 9)),
        (nn.Conv2d(4, 8, 3, dilation=2, padding=2, padding_mode="reflect"), (2, 4, 9, 9)),
    ],
)
def test_thin_layers_have_the_input_and_output_of_the_layer(
    layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...]
) -> None:
    thin = thin_layers(layer, 3)
    assert thin(torch.rand(shape)).shape == layer(torch.rand(shape)).shape
    assert thin[0].weight.shape[0] == 3
    assert thin[0].bias is None
    assert (thin[1].bias is None) == (layer.bias is None)


def test_layers_are_replaced_by_their_path() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    replace_layers(network, {"0.0": 1})
    assert [name for name, _ in network.named_parameters()] == [
        "0.0.0.weight",
        "0.0.1.weight",
        "0.0.1.bias",
        "2.weight",
        "2.bias",
    ]


def test_a_path_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="paths of layers in the network, got 'stem'"):
        replace_layers(nn.Sequential(nn.ReLU()), {"stem": 2})
    with pytest.raises(ValueError, match="'0' is a ReLU"):
        replace_layers(nn.Sequential(nn.ReLU()), {"0": 2})
