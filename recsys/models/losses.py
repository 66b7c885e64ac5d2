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

    Row i of the queries and row i of the keys are a positive pair, and the other rows are its
    negatives (van den Oord et al., 2018, https://arxiv.org/abs/1807.03748). Both directions count,
    as in CLIP (Radford et al., 2021). Unlike there, rows of the same group are not negatives of
    each other: two items with one title may be the same product. NT-Xent of
    pytorch-metric-learning can only treat such rows as positives.

    Args:
        queries: Unit-length embeddings (B, D), B at least 1.
        keys: Unit-length embeddings (B, D).
        groups: Group of each pair, int64 (B,).
        temperature: Divisor of the cosines; a tensor () if it is learned.

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

    The loss is that of SEED (Fang et al., 2021, https://arxiv.org/abs/2101.04731) with the batch as
    its queue. The cosines of a row to the other rows are read as a distribution, and the loss is
    the mean Kullback-Leibler divergence from the teacher's. Student and teacher may have different
    embedding sizes. Fewer than three rows give 0.

    Args:
        student: Unit-length embeddings (B, D).
        teacher: Unit-length embeddings (B, D_t).
        temperature: Divisor of the cosines of both.

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

    Several targets of one row share its denominator, as in the multinomial likelihood of Liang et
    al. (2018, https://arxiv.org/abs/1802.05814).

    Args:
        logits: Logit of every item (B, N); very negative for items that were not on offer.
        targets: Item rows, int64 (B, K).
        weights: Weight of each target (B, K), 0 on padding. If all are zero, the loss is 0.
    """
    surprises = logits.logsumexp(dim=1, keepdim=True) - logits.gather(1, targets)  # (B, K)
    return _weighted_mean(surprises, weights)


def sampled_softmax_loss(
    target_logits: Tensor, negative_logits: Tensor, weights: Tensor, *, n_items: int
) -> Tensor:
    """Return an estimate of :func:`catalogue_softmax_loss` from uniformly drawn negatives.

    For a uniform draw, the logQ correction of Bengio and Senecal (2008) is one constant: each of
    the S negatives stands for N / S items.

    Args:
        target_logits: Logits of the targets (B, K).
        negative_logits: Logits of the negatives (B, S); very negative where one is excluded.
        weights: Weight of each target (B, K), 0 on padding. If all are zero, the loss is 0.
        n_items: Catalogue size N.
    """
    correction = math.log(n_items / negative_logits.shape[1])
    others = negative_logits.logsumexp(dim=1, keepdim=True) + correction  # (B, 1)
    surprises = torch.logaddexp(target_logits, others) - target_logits  # (B, K)
    return _weighted_mean(surprises, weights)


def listwise_softmax_loss(logits: Tensor, relevance: Tensor, mask: Tensor) -> Tensor:
    """Return the mean listwise loss of the lists that have something relevant, a scalar.

    The loss is the cross-entropy between the relevance, scaled to sum to 1, and the softmax of the
    logits. It is ListNet (Cao et al., 2007) with the relevance in place of its exponential, so that
    an irrelevant candidate has a share of 0. A batch without a relevant candidate gives 0.

    Args:
        logits: Logit of each candidate (B, K).
        relevance: Relevance of each candidate, at least 0 (B, K); ignored where the mask is false.
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
