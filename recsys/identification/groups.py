"""Groups of siblings that may be answered together, and when to speak at all."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MAX_MEMBERS = 5  # of a group: more names are no answer


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it gave on photos whose products the weights had not been fitted on.

    Args:
        threshold: Least probability to speak; None where none reaches the wanted precision.
        precision: Share of what was said that was right; the risk is what is missing to 1. Without
            a threshold, the best that any reaches; None where it was not measured.
        coverage: Share of the photos that something was said about; None where not measured.
    """

    threshold: float | None
    precision: float | None = None
    coverage: float | None = None

    def passes(self, probability: float) -> bool:
        """Return whether the probability is enough to speak."""
        return self.threshold is not None and probability >= self.threshold


class Sets(NamedTuple):
    """Small sets of products around the most probable one of each photo, narrowest first."""

    rows: Tensor  # int64 (B, L + 1, K): its K most probable siblings, level by level, then anything
    sums: Tensor  # (B, L + 1, K): probability of the first one, two, ... of them together


class Choice(NamedTuple):
    """Which of the sets is the answer."""

    levels: Tensor  # int64 (B,), place in ``Sets``; -1 where no set is probable enough
    sizes: Tensor  # int64 (B,), members; 0 where there is no answer


def likely_sets(probabilities: Tensor, ancestors: Tensor) -> Sets:
    """Return sets of siblings that may be answered together.

    Args:
        probabilities: Of the products (B, N).
        ancestors: Category of each product by level, coarse to fine, int64 (N, L); -1 for none.
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

    Hedges as Deng et al. do (2012, https://doi.org/10.1109/CVPR.2012.6248086): as exact as the
    wanted precision allows. Theirs names a whole category; ours its few likely members.
    """
    enough = sets.sums >= threshold  # (B, L + 1, K)
    level = enough.any(dim=2).int().argmax(dim=1)
    row = torch.arange(len(level), device=level.device)
    size = enough[row, level].int().argmax(dim=1) + 1
    answered = enough.flatten(1).any(dim=1)
    return Choice(torch.where(answered, level, -1), torch.where(answered, size, 0))
