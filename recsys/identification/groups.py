"""Groups of sibling products that can be named together."""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_MEMBERS = 5  # a longer group would not help the caller


class Sets(NamedTuple):
    """Small sets of products around the most probable one of each photo, narrowest first."""

    rows: Tensor  # int64 (B, L + 1, K): most probable siblings level by level, then any products
    sums: Tensor  # (B, L + 1, K): probability of the first one, two, ... of them together


class Choice(NamedTuple):
    """The set that is named for each photo."""

    levels: Tensor  # int64 (B,): index along L + 1 of ``Sets``; -1 if no set is probable enough
    sizes: Tensor  # int64 (B,): number of members; 0 if no set is probable enough


def likely_sets(probabilities: Tensor, ancestors: Tensor) -> Sets:
    """Return the sets of siblings that can be named together.

    Args:
        probabilities: Probability of each product (B, N).
        ancestors: Category of each product by level, coarse to fine, int64 (N, L); -1 where the
            path has ended.
    """
    best = probabilities.argmax(dim=1)
    width = min(MAX_MEMBERS, probabilities.shape[1])
    found = []
    for level in reversed(range(ancestors.shape[1])):
        own = ancestors[best, level][:, None]  # (B, 1)
        among = (ancestors[:, level] == own) & (own >= 0)
        among = among.scatter(1, best[:, None], True)  # (B, N)
        found.append(probabilities.masked_fill(~among, 0.0).topk(width, dim=1))
    found.append(probabilities.topk(width, dim=1))
    sums = torch.stack([top.values for top in found], dim=1).cumsum(dim=2)
    return Sets(torch.stack([top.indices for top in found], dim=1), sums)


def choose(sets: Sets, threshold: float) -> Choice:
    """Return the smallest set of the narrowest category that is probable enough.

    Trades exactness for precision as Deng et al. do (2012,
    https://doi.org/10.1109/CVPR.2012.6248086). They name a whole category, this names its few
    likely members.

    Args:
        sets: Sets of B photos.
        threshold: Smallest probability of a set that can be named.
    """
    enough = sets.sums >= threshold  # (B, L + 1, K)
    level = enough.any(dim=2).int().argmax(dim=1)
    photo = torch.arange(len(level), device=level.device)
    size = enough[photo, level].int().argmax(dim=1) + 1
    named = enough.flatten(1).any(dim=1)
    return Choice(torch.where(named, level, -1), torch.where(named, size, 0))
