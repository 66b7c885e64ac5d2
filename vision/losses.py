"""What a tower is trained on: one cross-entropy per target, on the heads and on the embedding."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.dataset import UNKNOWN


class Mix(NamedTuple):
    """Which picture was blended into which, and how much of the first is left."""

    partner: Tensor  # int64 (B,)
    share: float  # of the first picture, 0..1


def masked_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the rows whose label is known, 0 when none is.

    Args:
        logits: (B, C).
        labels: Class indices, int64 (B,); -1 where unknown.
        label_smoothing: Share of each label spread over all classes.
    """
    total = F.cross_entropy(
        logits, labels, ignore_index=UNKNOWN, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / (labels != UNKNOWN).sum().clamp(min=1)


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
    total = labels.new_zeros((), dtype=torch.float32)
    for column, (name, scores) in enumerate(logits.items()):
        own = labels[:, column]
        loss = masked_cross_entropy(scores, own, label_smoothing=label_smoothing)
        if mix is not None:
            other = masked_cross_entropy(scores, own[mix.partner], label_smoothing=label_smoothing)
            loss = mix.share * loss + (1.0 - mix.share) * other
        total = total + weights.get(name, 1.0) * loss
    return total / sum(weights.get(name, 1.0) for name in logits)
