"""The ranking network: features of a candidate in, a logit out."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.config import RankerConfig
from recsys.errors import InvalidArgumentError

# Standardised features are clamped to this many deviations, so that a live value unlike any in
# training cannot dominate the score.
LIMIT = 5.0
CONSTANT = 1e-4  # a feature with a smaller deviation counts as constant


class RankerSpec(NamedTuple):
    """Sizes of a ``Ranker``, which a bundle keeps to build it again."""

    hidden: int
    dropout: float


class Ranker(nn.Module):
    """Linear model plus a small MLP on standardised features.

    The shape is wide-and-deep (Cheng et al., 2016, https://arxiv.org/abs/1606.07792) without
    crossed or id features: both parts read the same dense features.

    Args:
        n_features: Number of features F.
        hidden: Width of the two hidden layers.
        dropout: Dropout rate of the hidden layers.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, n_features: int, *, hidden: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.spec = RankerSpec(hidden, dropout)
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))
        self.wide = nn.Linear(n_features, 1)
        self.deep = nn.Sequential(
            nn.Linear(n_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def fit_scale(self, features: Tensor) -> None:
        """Set the mean and the deviation to those of training features (n, F).

        A feature that was constant in training is switched off. Its weights are untrained, and a
        live value, such as that of a later season, would add noise to the score.
        """
        self.mean.copy_(features.mean(dim=0))
        deviation = features.std(dim=0, correction=0)
        self.deviation.copy_(deviation.masked_fill(deviation < CONSTANT, torch.inf))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (...) for features (..., F); errors as for :meth:`standardise`.

        After training they are computed in double precision and rounded once, so that they do not
        depend on what else is in the batch.
        """
        if self.training:
            return self.score(self.standardise(features))
        return self.score(self.standardise(features.double())).to(features.dtype)

    def standardise(self, features: Tensor) -> Tensor:
        """Return features (..., F) in deviations from their mean, within ``LIMIT``.

        Raises:
            InvalidArgumentError: If the last dimension is not F.
        """
        if features.shape[-1] != len(self.mean):
            raise InvalidArgumentError(
                f"features must have {len(self.mean)} columns, got {tuple(features.shape)}"
            )
        return ((features - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)

    def contributions(self, features: Tensor) -> Tensor:
        """Return the contribution of each feature (C, F) to each candidate's logit, (C, F).

        It is the gradient times the standardised feature, which is exact for the linear part and a
        first-order approximation of the rest.
        """
        inputs = self.standardise(features).requires_grad_()  # (C, F)
        gradient = torch.autograd.grad(self.score(inputs).sum(), inputs)[0]
        return (gradient * inputs).detach()

    def score(self, standardised: Tensor) -> Tensor:
        """Return logits (...) for standardised features (..., F)."""
        flat = standardised.reshape(-1, standardised.shape[-1])
        deep = flat
        for layer in self.deep:
            deep = _linear(layer, deep) if isinstance(layer, nn.Linear) else layer(deep)
        return (_linear(self.wide, flat) + deep).view(standardised.shape[:-1])


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Return the layer's output in the precision of its inputs."""
    return F.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))


def build_ranker(config: RankerConfig, n_features: int) -> Ranker:
    """Return an untrained ranker of ``n_features`` features."""
    return Ranker(n_features, hidden=config.hidden, dropout=config.dropout)
