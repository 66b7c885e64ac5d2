"""Methods that learn from two views of each picture: SimCLR and BYOL."""

import copy
import math
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import SelfSupervisedLoss, SupConLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor, nn
from torchvision.ops import MLP

from vision.config import PretrainingConfig


class Compared(NamedTuple):
    """The result of comparing two views of every picture."""

    loss: Tensor  # scalar
    projections: Tensor  # of both views, (2B, D)


class SimClr(nn.Module):
    """Brings two views of a picture together, and moves views of different pictures apart.

    SimCLR (Chen et al., 2020, https://arxiv.org/abs/2002.05709); AdamW in place of LARS.

    Args:
        backbone: Network to train, (B, 3, H, W) -> (B, F).
        features: Number of features F.
        hidden: Width of the projection MLP.
        dim: Size D of the projection.
        temperature: Divisor of the cosines; a smaller one attends more to the nearest pictures.
    """

    def __init__(
        self, backbone: nn.Module, features: int, *, hidden: int, dim: int, temperature: float
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(backbone, _mlp(features, hidden, dim))
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> Compared:
        """Return the loss and projections of two views (B, 3, H, W) of the same pictures."""
        projections = self.encoder(torch.cat([first, second])).float()
        one, other = projections.chunk(2)
        return Compared(nt_xent(one, other, self.temperature), projections)

    def after_step(self, step: int, total: int) -> None:
        """Do nothing: there is only one network."""


class Byol(nn.Module):
    """Predicts, from one view of a picture, what an average of past weights makes of the other.

    BYOL (Grill et al., 2020, https://arxiv.org/abs/2006.07733); AdamW in place of LARS.

    Args:
        backbone: Network to train, (B, 3, H, W) -> (B, F).
        features: Number of features F.
        hidden: Width of the projection and prediction MLPs.
        dim: Size D of the projection.
        momentum: Share of the averaged weights that the first step keeps.
    """

    def __init__(
        self, backbone: nn.Module, features: int, *, hidden: int, dim: int, momentum: float
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(backbone, _mlp(features, hidden, dim))
        self.predictor = _mlp(dim, hidden, dim)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.momentum = momentum

    def forward(self, first: Tensor, second: Tensor) -> Compared:
        """Return the symmetrised loss and projections of two views (B, 3, H, W) of pictures."""
        # In two passes, so that batch norms leak no statistics from one view to the other.
        projections = [self.encoder(first), self.encoder(second)]
        with torch.no_grad():
            wanted = [self.target(second), self.target(first)]
        losses = [
            byol_loss(self.predictor(projection), target)
            for projection, target in zip(projections, wanted, strict=True)
        ]
        return Compared(losses[0] + losses[1], torch.cat(projections).float())

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Move the averaged weights towards those of the network.

        Args:
            step: Number of steps so far.
            total: Number of steps in the whole run.
        """
        share = 1.0 - momentum_at(step, total, self.momentum)
        # Statistics of batch norms are not averaged: the target normalises by its own batch.
        for average, current in zip(
            self.target.parameters(), self.encoder.parameters(), strict=True
        ):
            average.lerp_(current, share)


Method: TypeAlias = SimClr | Byol


def build_method(backbone: nn.Module, features: int, config: PretrainingConfig) -> Method:
    """Return the configured method around a backbone with features (B, F)."""
    if config.method == "simclr":
        return SimClr(
            backbone,
            features,
            hidden=config.hidden,
            dim=config.dim,
            temperature=config.temperature,
        )
    return Byol(backbone, features, hidden=config.hidden, dim=config.dim, momentum=config.momentum)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    """Return an MLP of one hidden layer with batch normalisation.

    The output is not normalised, because that would hide a collapse, see :func:`spread`.
    """
    mlp: nn.Module = MLP(inputs, [hidden, outputs], norm_layer=nn.BatchNorm1d)
    return mlp


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return SimCLR's loss: the mean cross-entropy of finding a view's twin among all others.

    Args:
        first: Projections of one view of every picture, of any length (B, D).
        second: Projections of the other view of every picture (B, D).
        temperature: Divisor of the cosines.
    """
    # With one positive each, the supervised contrastive loss equals NT-Xent. Its memory grows with
    # the square of the batch, that of the library's NTXentLoss with the cube. Its default reduction
    # would leave out views whose loss is 0.
    loss = SelfSupervisedLoss(SupConLoss(temperature, reducer=MeanReducer()))
    # Similarities over a small temperature are too large for the precision of bfloat16.
    with torch.autocast(first.device.type, enabled=False):
        value: Tensor = loss(first.float(), second.float())
    return value


def byol_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared distance of (B, D) and (B, D) as unit vectors, 2 - 2 cos, 0 to 4."""
    return (2.0 - 2.0 * F.cosine_similarity(predicted.float(), target.float())).mean()


def momentum_at(step: int, total: int, base: float) -> float:
    """Return the momentum after a step: a cosine from ``base`` at step 0 to 1 at the last."""
    return 1.0 - (1.0 - base) * 0.5 * (1.0 + math.cos(math.pi * step / total))


def spread(projections: Tensor) -> Tensor:
    """Return the spread of projections (B, D): 1 if they point to all sides, 0 if all are equal.

    The standard deviation of unit projections, averaged over the dimensions (Chen and He, 2021,
    https://arxiv.org/abs/2011.10566), here times sqrt(D) so that it can be read without knowing D.
    A run whose spread falls to 0 has collapsed: its features are the same for every picture.
    """
    unit = F.normalize(projections.detach().float(), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(projections.shape[1])
