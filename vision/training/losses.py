"""Losses over class labels: without unknown labels, weighted by class, for blended pictures."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.dataset import UNKNOWN


class Mix(NamedTuple):
    """How the pictures of a batch were blended with each other."""

    partner: Tensor  # row of the picture blended into each, int64 (B,)
    share: float  # of the picture itself that is left, 0 to 1


def masked_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean cross-entropy over the rows with a known label, a scalar; 0 without any.

    With class weights this is still the mean over rows. torch divides by the sum of the weights
    instead, so that a batch of rare classes counts no more than a batch of frequent classes.

    Args:
        logits: Logits of the classes (B, C).
        labels: Class indices, int64 (B,); -1 where unknown.
        label_smoothing: Share of each label spread over all classes.
        class_weights: Factor of the loss of each class, (C,).
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
    """Return the mean focal loss over the rows with a known label, a scalar; 0 without any.

    Focal loss of Lin et al. (2017, https://arxiv.org/abs/1708.02002), with a softmax over classes
    in place of one sigmoid each: the term -log p of a class is multiplied by (1 - p) ** gamma. The
    paper has no smoothing. Here it spreads the label over the terms of all classes, so that the
    loss stays linear in the label and gamma 0 is the cross-entropy.

    Args:
        logits: Logits of the classes (B, C).
        labels: Class indices, int64 (B,); -1 where unknown.
        gamma: Exponent that lowers the loss of easy pictures.
        label_smoothing: Share of each label spread over all classes.
        class_weights: Factor of the loss of each class, (C,).
    """
    log_p = logits.float().log_softmax(dim=1)
    # Float32 rounds 1 - p of an easy picture to 0, where a power below 1 has no finite gradient.
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
    """Return the loss of blended pictures against both labels, weighted by shares of pixels.

    Args:
        loss: Function of logits (B, C) and labels (B,) that returns a scalar.
        logits: Logits of the blended pictures (B, C).
        labels: Labels of the pictures before they were blended, int64 (B,).
        mix: How the pictures were blended; None if they were not.
    """
    own = loss(logits, labels)
    if mix is None:
        return own
    return mix.share * own + (1.0 - mix.share) * loss(logits, labels[mix.partner])


def cosine_logits(embeddings: Tensor, proxies: Tensor, temperature: float) -> Tensor:
    """Return the cosine of every embedding with every class, over the temperature (B, C).

    The normalised softmax of Zhai and Wu (2019, https://arxiv.org/abs/1811.12649), without their
    class balancing: embeddings of one class gather around one learned direction, so that nearest
    neighbours share their class.

    Args:
        embeddings: Unit-length embeddings (B, D).
        proxies: One direction per class, of any length (C, D).
        temperature: Divisor of the cosines; a smaller one separates classes more sharply.
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
    """Return the weighted mean of the targets' masked cross-entropies, a scalar.

    Args:
        logits: Logits (B, C) by target name.
        labels: Class indices, int64 (B, number of targets), in the order of ``logits``; -1 where
            unknown.
        weights: Weights by target name; other targets have weight 1.
        label_smoothing: Share of each label spread over all classes.
        mix: How the pictures were blended; None if they were not.
    """

    def cross_entropy(scores: Tensor, own: Tensor) -> Tensor:
        return masked_cross_entropy(scores, own, label_smoothing=label_smoothing)

    total = labels.new_zeros((), dtype=torch.float32)
    for column, (name, scores) in enumerate(logits.items()):
        loss = blended_loss(cross_entropy, scores, labels[:, column], mix)
        total = total + weights.get(name, 1.0) * loss
    return total / sum(weights.get(name, 1.0) for name in logits)
