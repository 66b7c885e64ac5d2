"""The losses of fine-tuning: texts should be found by their queries, and have their classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from text.errors import InvalidArgumentError


def contrastive_loss(
    queries: Tensor, titles: Tensor, also_answers: Tensor, *, temperature: float
) -> Tensor:
    """Return the mean InfoNCE loss of queries and titles, in both directions, a scalar.

    As in van den Oord et al. (2018, https://arxiv.org/abs/1807.03748), where every other row of the
    batch is a negative. Here titles that answer a query as well as its own title are left out.

    Args:
        queries: Unit-length embeddings of queries (B, D); row n belongs to row n of ``titles``.
        titles: Unit-length embeddings of titles (B, D).
        also_answers: Pairs (query, title) to leave out of the negatives, bool (B, B).
        temperature: Divisor of the cosines.

    Raises:
        InvalidArgumentError: If the shapes disagree.
    """
    count = len(queries)
    if queries.shape != titles.shape or also_answers.shape != (count, count):
        raise InvalidArgumentError(
            f"queries and titles must share a shape (B, D) and also_answers be (B, B), got "
            f"{tuple(queries.shape)}, {tuple(titles.shape)} and {tuple(also_answers.shape)}"
        )
    own = torch.eye(count, dtype=torch.bool, device=queries.device)
    logits = (queries @ titles.T / temperature).masked_fill(also_answers & ~own, -torch.inf)
    labels = torch.arange(count, device=queries.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def cosine_logits(embeddings: Tensor, proxies: Tensor, temperature: float) -> Tensor:
    """Return the cosine of every embedding with every class, over the temperature (B, C).

    Args:
        embeddings: Unit-length embeddings (B, D).
        proxies: One direction per class, of any length (C, D).
        temperature: Divisor of the cosines.
    """
    return embeddings @ F.normalize(proxies, dim=1).T / temperature


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the rows with a known label, a scalar; 0 without any.

    Args:
        logits: Logits of the classes (B, C).
        labels: Class indices, int64 (B,); -1 where unknown.
    """
    n_known = (labels >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / n_known
