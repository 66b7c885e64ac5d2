"""Training losses: contrastive between views, softmax over a catalogue, listwise for the ranker."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.errors import InvalidArgumentError


def info_nce(
    queries: Tensor, keys: Tensor, groups: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """Return the mean InfoNCE loss in both directions, a scalar.

    Row i of the queries and of the keys is a positive pair; the other rows are its negatives (van
    den Oord et al., 2018, https://arxiv.org/abs/1807.03748; both directions as in CLIP, Radford et
    al., 2021). Differs in that rows of the same group are left out of the negatives: two items with
    the same title are no evidence against each other. pytorch-metric-learning's NT-Xent can only
    treat such rows as positives.

    Args:
        queries: Unit-length embeddings (B, D), B at least 1.
        keys: Unit-length embeddings (B, D).
        groups: Group of each pair, int64 (B,).
        temperature: Divides the cosines; a tensor () where it is learned.

    Raises:
        InvalidArgumentError: If the shapes disagree.
    """
    if queries.shape != keys.shape or groups.shape != queries.shape[:1]:
        raise InvalidArgumentError(
            f"queries and keys must both be (B, D) and groups (B,), got {tuple(queries.shape)}, "
            f"{tuple(keys.shape)} and {tuple(groups.shape)}"
        )
    duplicates = groups[:, None] == groups[None, :]  # (B, B)
    duplicates = duplicates.fill_diagonal_(False)
    logits = (queries @ keys.T / temperature).masked_fill(duplicates, -math.inf)
    positives = torch.arange(len(queries), device=queries.device)
    return (F.cross_entropy(logits, positives) + F.cross_entropy(logits.T, positives)) / 2


def similarity_distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return how far the student's similarities within a batch are from the teacher's, a scalar.

    Each row's cosines to the other rows, as a distribution, are to be the teacher's (SEED: Fang et
    al., 2021, https://arxiv.org/abs/2101.04731, with the batch as its queue): the mean
    Kullback-Leibler divergence. The two may have different sizes. Fewer than three rows give 0.

    Args:
        student: Unit-length embeddings (B, D).
        teacher: Unit-length embeddings (B, D_t).
        temperature: Divides the cosines of both.

    Raises:
        InvalidArgumentError: If the numbers of rows disagree.
    """
    if len(student) != len(teacher):
        raise InvalidArgumentError(
            f"student and teacher must have one row per item, got {len(student)} and {len(teacher)}"
        )
    if len(student) < 3:
        return student.sum() * 0.0
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    shape = (len(student), len(student) - 1)
    logits = [(side @ side.T / temperature)[others].view(shape) for side in (student, teacher)]
    got, wanted = (each.log_softmax(dim=1) for each in logits)
    return F.kl_div(got, wanted, reduction="batchmean", log_target=True)


def catalogue_softmax_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of -log p(target) over the whole catalogue, a scalar.

    Several targets of one row share its denominator: the multinomial likelihood of Liang et al.,
    2018, https://arxiv.org/abs/1802.05814.

    Args:
        logits: Of every item (B, N); very negative for items that were not on offer.
        targets: Item rows, int64 (B, K).
        weights: Weight of each target (B, K); 0 pads. All zero gives 0.
    """
    surprises = logits.logsumexp(dim=1, keepdim=True) - logits.gather(1, targets)  # (B, K)
    return _weighted_mean(surprises, weights)


def sampled_softmax_loss(
    target_logits: Tensor, negative_logits: Tensor, weights: Tensor, *, n_items: int
) -> Tensor:
    """Return an estimate of :func:`catalogue_softmax_loss` from uniformly drawn negatives.

    The logQ correction of Bengio and Senecal (2008) for a uniform draw is one constant: each of the
    S negatives stands for N / S items.

    Args:
        target_logits: (B, K).
        negative_logits: (B, S), very negative where one does not count for this row.
        weights: Weight of each target (B, K); 0 pads. All zero gives 0.
        n_items: Catalogue size N.
    """
    correction = math.log(n_items / negative_logits.shape[1])
    others = negative_logits.logsumexp(dim=1, keepdim=True) + correction  # (B, 1)
    surprises = torch.logaddexp(target_logits, others) - target_logits  # (B, K)
    return _weighted_mean(surprises, weights)


def listwise_softmax_loss(logits: Tensor, relevance: Tensor, mask: Tensor) -> Tensor:
    """Return the mean listwise loss of the lists that have something relevant, a scalar.

    Cross-entropy between the relevance, scaled to sum to 1, and the softmax of the logits: ListNet
    (Cao et al., 2007) with the relevance itself in place of its exponential, so that an irrelevant
    candidate has no share. A batch without any relevant candidate gives 0.

    Args:
        logits: (B, K).
        relevance: At least 0 (B, K); read only where the mask is true.
        mask: Which entries are candidates, bool (B, K).

    Raises:
        InvalidArgumentError: If the shapes disagree.
    """
    if not logits.shape == relevance.shape == mask.shape:
        raise InvalidArgumentError(
            f"logits, relevance and mask must have one shape (B, K), got {tuple(logits.shape)}, "
            f"{tuple(relevance.shape)} and {tuple(mask.shape)}"
        )
    relevance = relevance.masked_fill(~mask, 0.0)
    totals = relevance.sum(dim=1, keepdim=True)  # (B, 1)
    shares = relevance / totals.clamp(min=torch.finfo(logits.dtype).tiny)
    # The lowest finite number, not -inf: a list without candidates would give NaN gradients.
    masked = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    losses = -(shares * masked.log_softmax(dim=1).masked_fill(~mask, 0.0)).sum(dim=1)  # (B,)
    return losses.sum() / (totals > 0).sum().clamp(min=1)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return (values * weights).sum() / total
