"""What the heads are trained to do: a loss for each target, and a weight for each loss."""

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
    """The loss of one head: cross-entropy or focal, of logits that may be shifted.

    Args:
        gamma: Of the focal loss; 0 is the cross-entropy.
        label_smoothing: Share of each label spread over all classes.
        shift: Added to the logits, (C,).
        class_weights: Factor of each class's term, (C,).
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
        # Both follow from the labels, so checkpoints need not hold them.
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the rows of logits (B, C) whose label (B,) is not -1."""
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
    """The weighted mean of the targets' losses.

    Args:
        weights: One per target, mean 1, (T,).
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, losses: Tensor, labelled: Tensor) -> Tensor:
        """Return the mean of weighted losses (T,); ``labelled`` is for weights that learn."""
        return (self.weights * losses).mean()


class UncertaintyWeights(nn.Module):
    """A mean of the targets' losses whose weights are learned with the network.

    Homoscedastic uncertainty of Kendall et al. (2018, https://arxiv.org/abs/1705.07115) for
    classification: a loss is divided by its target's variance, whose logarithm is charged for.
    Unlike theirs it is a mean over the targets, begins at given weights, and a batch in which a
    target has no label leaves its variance alone.

    Args:
        weights: What the weights begin at, one per target, above 0, (T,).
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(-weights.log())

    def forward(self, losses: Tensor, labelled: Tensor) -> Tensor:
        """Return the mean of weighted losses (T,) and charges; may be negative.

        Args:
            losses: One per target, (T,).
            labelled: Which targets have a label in the batch, bool (T,).
        """
        weighted = losses * torch.exp(-self.log_variances) + 0.5 * self.log_variances
        return weighted.masked_fill(~labelled, 0.0).mean()


WEIGHTINGS: dict[str, type[FixedWeights] | type[UncertaintyWeights]] = {
    "fixed": FixedWeights,
    "learned": UncertaintyWeights,
}


class ClassificationObjective(nn.Module):
    """One number to minimise for the logits of all heads.

    Args:
        losses: Loss of every target, of logits (B, C) and labels (B,).
        weighting: Makes one of the losses (T,); told which targets have a label, bool (T,).
    """

    def __init__(self, losses: Mapping[str, nn.Module], weighting: nn.Module) -> None:
        super().__init__()
        self.targets = tuple(losses)
        # A list, because a module's name may not hold the dots and spaces that a target's may.
        self.losses = nn.ModuleList(losses.values())
        self.weighting = weighting

    def forward(self, logits: Mapping[str, Tensor], labels: Tensor, mix: Mix | None) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B, C) of every target.
            labels: int64 (B, number of targets), in the order of the targets; -1 where unknown.
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
        config: Gives label smoothing, the targets' weights and the table ``objective``.
        counts: Training pictures of every class of every target, (C,), in the targets' order.

    Raises:
        InvalidArgumentError: If the weights leave no target to learn, or learned ones begin at 0.
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

    Added to the logits in training only, they make the logit-adjusted loss of Menon et al. (2021,
    https://arxiv.org/abs/2007.07314): the logits alone then answer as if all classes were equally
    frequent. A class never seen, whose prior they leave undefined, counts as seen once.
    """
    seen = torch.from_numpy(np.maximum(counts, 1))
    return (seen / seen.sum()).log().float()
