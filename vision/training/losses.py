"""Losses over class labels: masked, weighted by class, blended as mixed pictures are."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.dataset import UNKNOWN


class Mix(NamedTuple):
    """Which picture was blended into which, and how much of the first is left."""

    partner: Tensor  # int64 (B,)
    share: float  # of the first picture, 0..1


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy over the rows whose label is known, 0 when none is.

    With class weights this is still the mean over rows: torch divides by their weights instead,
    which lets a batch of rare classes count no more than one of frequent ones.

    Args:
        logits: (B, C).
        labels: Class indices, int64 (B,); -1 where unknown.
        label_smoothing: Share of each label spread over all classes.
        class_weights: Factor of each class's term, (C,).
    """
    total = F.cross_entropy(
        logits,
        labels,
        weight=class_weights,
        ignore_index=UNKNOWN,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def masked_focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean focal loss over the rows whose label is known, 0 when none is.

    Focal loss of Lin et al. (2017, https://arxiv.org/abs/1708.02002), with a softmax over classes
    in place of one sigmoid each: the term -log p of a class is muted by (1 - p) ** gamma. They have
    no smoothing; here it spreads the label over the muted terms of all classes, so that the loss
    stays linear in the label and gamma 0 is the cross-entropy.

    Args:
        logits: (B, C).
        labels: Class indices, int64 (B,); -1 where unknown.
        gamma: How far easy pictures are muted.
        label_smoothing: Share of each label spread over all classes.
        class_weights: Factor of each class's term, (C,).
    """
    log_p = logits.float().log_softmax(dim=1)
    # A power below 1 has no gradient at 0, which is where float32 takes a sure picture.
    missing = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    terms = -(missing**gamma) * log_p  # (B, C)
    if class_weights is not None:
        terms = terms * class_weights
    known = labels != UNKNOWN
    own = terms.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    rows = (1.0 - label_smoothing) * own + label_smoothing * terms.mean(dim=1)
    return rows.masked_fill(~known, 0.0).sum() / known.sum().clamp(min=1)


def blended_loss(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor, mix: Mix | None
) -> Tensor:
    """Return the loss against both labels of blended pictures, in the shares of their pixels.

    Args:
        loss: Of logits (B, C) and labels (B,).
        logits: (B, C).
        labels: int64 (B,), of the pictures before they were blended.
        mix: How they were blended; None if they were not.
    """
    own = loss(logits, labels)
    if mix is None:
        return own
    return mix.share * own + (1.0 - mix.share) * loss(logits, labels[mix.partner])


def cosine_logits(embeddings: Tensor, proxies: Tensor, temperature: float) -> Tensor:
    """Return cosine similarity over temperature of every embedding with every class, (B, C).

    The normalised softmax of Zhai and Wu (2019, https://arxiv.org/abs/1811.12649), without their
    class balancing: pictures of one class gather around one learned direction, so that nearest
    neighbours share their class.

    Args:
        embeddings: Unit length, (B, D).
        proxies: One direction per class, any length, (C, D).
        temperature: Smaller separates classes harder.
    """
    return embeddings @ F.normalize(proxies, dim=1).T / temperature


def multi_task_loss(
    logits: Mapping[str, Tensor],
    labels: Tensor,
    *,
    weights: Mapping[str, float],
    label_smoothing: float,
    mix: Mix | None = None,
) -> Tensor:
    """Return the weighted mean over the targets of their masked cross-entropies, a scalar.

    Args:
        logits: (B, C) of every target.
        labels: int64 (B, number of targets), in the order of logits; -1 where unknown.
        weights: Weight of each target; 1 where not named.
        label_smoothing: Share of each label spread over all classes.
        mix: How the pictures were blended; the loss is blended alike.
    """

    def cross_entropy(scores: Tensor, own: Tensor) -> Tensor:
        return masked_cross_entropy(scores, own, label_smoothing=label_smoothing)

    total = labels.new_zeros((), dtype=torch.float32)
    for column, (name, scores) in enumerate(logits.items()):
        loss = blended_loss(cross_entropy, scores, labels[:, column], mix)
        total = total + weights.get(name, 1.0) * loss
    return total / sum(weights.get(name, 1.0) for name in logits)
