"""The linear layers that may follow pooling, as sentence-transformers defines them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from text.errors import InvalidArgumentError

# The names that checkpoints use. A name in a file never imports anything else.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
}


class Dense(nn.Module):
    """A linear layer and an activation.

    Args:
        in_features: Size of the input vectors.
        out_features: Size of the output vectors.
        bias: Whether the layer adds a bias.
        activation: A name in ``ACTIVATIONS``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str = "torch.nn.modules.linear.Identity",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InvalidArgumentError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = ACTIVATIONS[activation]()
        self.activation_name = activation

    def forward(self, pooled: Tensor) -> Tensor:
        """Return (B, out_features) from (B, in_features)."""
        activated: Tensor = self.activation(self.linear(pooled))
        return activated


def build_projection(in_features: int, out_features: int, *, seed: int) -> Dense:
    """Return an orthogonal linear map, which keeps distances as well as its size allows.

    Args:
        in_features: Size of the input vectors.
        out_features: Size of the output vectors.
        seed: Random seed for the weights.
    """
    dense = Dense(in_features, out_features, bias=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn.init.orthogonal_(dense.linear.weight)
    return dense
