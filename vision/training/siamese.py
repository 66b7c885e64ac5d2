"""What is learned from two views of each picture: SimCLR and BYOL."""

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
    """What comparing two views of every picture gives."""

    loss: Tensor  # scalar
    projections: Tensor  # of both views, (2B, D)


class SimClr(nn.Module):
    """Two views of a picture are drawn together, and those of different pictures apart.

    SimCLR (Chen et al., 2020, https://arxiv.org/abs/2002.05709); AdamW in place of LARS.

    Args:
        backbone: The network that learns, (B, 3, H, W) -> (B, F).
        features: F.
        hidden: Width of the projection MLP.
        dim: Size D of the projection.
        temperature: Smaller attends more to the nearest of the other pictures.
    """

    def __init__(
        self, backbone: nn.Module, features: int, *, hidden: int, dim: int, temperature: float
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(backbone, _mlp(features, hidden, dim))
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> Compared:
        """Return the loss of two views (B, 3, H, W) of the same pictures, and projections."""
        projections = self.encoder(torch.cat([first, second])).float()
        one, other = projections.chunk(2)
        return Compared(nt_xent(one, other, self.temperature), projections)

    def after_step(self, step: int, total: int) -> None:
        """Do nothing: there is one network only."""


class Byol(nn.Module):
    """A network foretells what an average of its own past makes of another view.

    BYOL (Grill et al., 2020, https://arxiv.org/abs/2006.07733); AdamW in place of LARS.

    Args:
        backbone: The network that learns, (B, 3, H, W) -> (B, F).
        features: F.
        hidden: Width of the projection and prediction MLPs.
        dim: Size D of the projection.
        momentum: Share of the target that the first step keeps.
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
        """Return the symmetrised loss of two views (B, 3, H, W) of pictures, and projections."""
        # Not in one pass as above: batch norms would leak the statistics of one view to the other.
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
        """Move the target towards the network.

        Args:
            step: Steps taken so far.
            total: Steps of the whole run.
        """
        share = 1.0 - momentum_at(step, total, self.momentum)
        # Statistics of batch norms are each network's own: the target normalises by its batch.
        for average, current in zip(
            self.target.parameters(), self.encoder.parameters(), strict=True
        ):
            average.lerp_(current, share)


Method: TypeAlias = SimClr | Byol


def build_method(backbone: nn.Module, features: int, config: PretrainingConfig) -> Method:
    """Return the method of the configuration around a backbone that gives features (B, F)."""
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
    """Return one hidden layer with batch normalisation, which the output is without.

    A normalised output would hide a collapse: see ``spread``.
    """
    mlp: nn.Module = MLP(inputs, [hidden, outputs], norm_layer=nn.BatchNorm1d)
    return mlp


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return SimCLR's loss: the mean cross-entropy of picking a view's twin among all others.

    Args:
        first: One view's projection of every picture, any length, (B, D).
        second: The other view's, (B, D).
        temperature: Cosine similarities are divided by it.
    """
    # With one positive each, the supervised contrastive loss is NT-Xent, and takes memory by the
    # square of the batch; the library's NTXentLoss takes its cube. Its default reduction is a mean
    # over the views whose loss is not 0.
    loss = SelfSupervisedLoss(SupConLoss(temperature, reducer=MeanReducer()))
    # Similarities over a small temperature are larger than bfloat16 tells apart.
    with torch.autocast(first.device.type, enabled=False):
        value: Tensor = loss(first.float(), second.float())
    return value


def byol_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared distance of unit vectors, 2 - 2 cos, of two (B, D); 0 to 4."""
    return (2.0 - 2.0 * F.cosine_similarity(predicted.float(), target.float())).mean()


def momentum_at(step: int, total: int, base: float) -> float:
    """Return the momentum after a step: from base at 0 to 1 at the last, by a cosine."""
    return 1.0 - (1.0 - base) * 0.5 * (1.0 + math.cos(math.pi * step / total))


def spread(projections: Tensor) -> Tensor:
    """Return how widely projections (B, D) point: 1 to all sides evenly, 0 all the same way.

    The standard deviation of unit projections, averaged over the dimensions (Chen and He, 2021,
    https://arxiv.org/abs/2011.10566), here times sqrt(D) so that no D has to be known to read it. A
    run whose spread falls to 0 has collapsed: its features say the same of every picture.
    """
    unit = F.normalize(projections.detach().float(), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(projections.shape[1])
