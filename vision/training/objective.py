"""The loss of the classifier heads: one loss for each target, and a weight for each loss."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.config import VisionConfig
from vision.dataset import UNKNOWN
from vision.errors import InvalidArgumentError
from vision.training.imbalance import class_weights
from vision.training.losses import Mix, blended_loss, masked_cross_entropy, masked_focal_loss


class HeadLoss(nn.Module):
    """The loss of one head: cross-entropy or focal loss of its logits, which may be shifted.

    Args:
        gamma: Exponent of the focal loss; 0 is the cross-entropy.
        label_smoothing: Share of each label spread over all classes.
        shift: Constants to add to the logits, (C,); None adds nothing.
        class_weights: Factor of the loss of each class, (C,); None weighs all the same.
    """

    shift: Tensor | None
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        gamma: float,
        label_smoothing: float,
        shift: Tensor | None = None,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.gamma, self.label_smoothing = gamma, label_smoothing
        # Both are computed from the labels, so that checkpoints need not hold them.
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits (B, C) over the rows whose label (B,) is not -1."""
        if self.shift is not None:
            logits = logits + self.shift
        smoothing, weights = self.label_smoothing, self.class_weights
        if self.gamma == 0:
            return masked_cross_entropy(
                logits, labels, label_smoothing=smoothing, class_weights=weights
            )
        return masked_focal_loss(
            logits, labels, gamma=self.gamma, label_smoothing=smoothing, class_weights=weights
        )


class FixedWeights(nn.Module):
    """The mean of the targets' losses with fixed weights.

    Args:
        weights: Weights of the targets with mean 1, (T,).
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, losses: Tensor, labelled: Tensor) -> Tensor:
        """Return the mean of weighted losses (T,); only learned weights need ``labelled``."""
        return (self.weights * losses).mean()


class UncertaintyWeights(nn.Module):
    """The mean of the targets' losses with weights that are learned with the network.

    Homoscedastic uncertainty of Kendall et al. (2018, https://arxiv.org/abs/1705.07115) for
    classification: each loss is divided by a variance of its target, and the logarithm of the
    variance is added as a penalty. Here it is a mean over the targets that begins at chosen
    weights, and a batch without labels of a target leaves the variance of that target as it is.

    Args:
        weights: Initial weights of the targets, above 0, (T,).
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(-weights.log())

    def forward(self, losses: Tensor, labelled: Tensor) -> Tensor:
        """Return the mean of weighted losses (T,) with their penalties; it may be negative.

        Args:
            losses: Losses of the targets, (T,).
            labelled: Which targets have a label in the batch, bool (T,).
        """
        weighted = losses * torch.exp(-self.log_variances) + 0.5 * self.log_variances
        return weighted.masked_fill(~labelled, 0.0).mean()


WEIGHTINGS: dict[str, type[FixedWeights] | type[UncertaintyWeights]] = {
    "fixed": FixedWeights,
    "learned": UncertaintyWeights,
}


class ClassificationObjective(nn.Module):
    """The loss of all heads together.

    Args:
        losses: Losses by target name, each a function of logits (B, C) and labels (B,).
        weighting: Weighted mean of the losses (T,), a function of the losses and of which targets
            have a label, bool (T,).
    """

    def __init__(self, losses: Mapping[str, nn.Module], weighting: nn.Module) -> None:
        super().__init__()
        self.targets = tuple(losses)
        # A list, because names of modules may not have the dots and spaces that targets may have.
        self.losses = nn.ModuleList(losses.values())
        self.weighting = weighting

    def forward(self, logits: Mapping[str, Tensor], labels: Tensor, mix: Mix | None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: Logits (B, C) by target name.
            labels: Class indices, int64 (B, T), in the order of the targets; -1 where unknown.
            mix: How the pictures were blended; None if they were not.

        Raises:
            InvalidArgumentError: If there is not one column of labels for each target.
        """
        if labels.ndim != 2 or labels.shape[1] != len(self.targets):
            raise InvalidArgumentError(
                f"labels must have shape (B, {len(self.targets)}) for the targets "
                f"{', '.join(self.targets)}, got {tuple(labels.shape)}"
            )
        losses = [
            blended_loss(loss, logits[name], labels[:, column], mix)
            for column, (name, loss) in enumerate(zip(self.targets, self.losses, strict=True))
        ]
        loss: Tensor = self.weighting(torch.stack(losses), (labels != UNKNOWN).any(dim=0))
        return loss


def build_objective(
    config: VisionConfig, counts: Mapping[str, NDArray[np.int64]]
) -> ClassificationObjective:
    """Return the objective of the heads that a configuration describes.

    Args:
        config: Label smoothing, weights of the targets, and the table ``objective``.
        counts: Number of training pictures of each class (C,) by target name, in their order.

    Raises:
        InvalidArgumentError: If all weights are 0, or a learned weight would begin at 0.
    """
    weights = torch.tensor([config.target_weights.get(name, 1.0) for name in counts])
    kind = config.objective.target_weights
    if not weights.any():
        raise InvalidArgumentError(
            f"target_weights must leave one above 0, got {config.target_weights}"
        )
    if kind == "learned" and not weights.all():
        raise InvalidArgumentError(
            f"target_weights must be above 0 where they are learned, got {config.target_weights}; "
            'leave the target out of the samples or set objective.target_weights = "fixed"'
        )
    losses = {name: _build_head_loss(config, of_target) for name, of_target in counts.items()}
    return ClassificationObjective(losses, WEIGHTINGS[kind](weights / weights.mean()))


def _build_head_loss(config: VisionConfig, counts: NDArray[np.int64]) -> HeadLoss:
    objective = config.objective
    adjusted = objective.classifier == "logit_adjusted"
    weights = class_weights(counts, objective.class_weights)
    return HeadLoss(
        gamma=objective.focal_gamma if objective.classifier == "focal" else 0.0,
        label_smoothing=config.label_smoothing,
        shift=objective.logit_adjustment * log_priors(counts) if adjusted else None,
        class_weights=None if weights is None else torch.from_numpy(weights).float(),
    )


def log_priors(counts: NDArray[np.int64]) -> Tensor:
    """Return the logarithm of each class's share of the labels, float32 (C,).

    Added to the logits in training only, they give the logit-adjusted loss of Menon et al. (2021,
    https://arxiv.org/abs/2007.07314). Afterwards the logits alone predict as if all classes were
    equally frequent. A class without pictures, whose prior the paper leaves undefined, counts as
    having one.
    """
    seen = torch.from_numpy(np.maximum(counts, 1))
    return (seen / seen.sum()).log().float()
