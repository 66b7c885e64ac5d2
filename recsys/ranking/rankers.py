"""Rankers under one contract: the network, the trees, and each simple recommender by itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from recsys.errors import InvalidArgumentError
from recsys.ranking.features import FEATURES

# The simple recommenders, simplest first: each is one feature of the candidates.
SIMPLE = {
    "popularity": "users_ever",
    "popularity, three windows": "users_triple",
    "popularity, one window": "users_window",
    "popularity, half a window": "users_half",
    "popularity, a quarter": "users_quarter",
    "own purchases": "own_long",
    "item-kNN": "item_knn",
    "item-kNN, recent": "item_knn_recent",
    "next visit": "next_visit",
    "EASE": "ease",
    "EASE, recent": "ease_recent",
    "iALS": "ials",
    "content": "profile_similarity",
    "taste": "user_affinity",
}
POPULARITY, TASTE = "popularity", "taste"
TREES, NETWORK, BLEND = "trees", "network", "blend"
_TIE = FEATURES.index("users_ever")
_TIE_WEIGHT = 1e-6  # equals are in the order of their popularity
_NO_SPREAD = 1e-6  # scores with a smaller deviation are equal but for rounding


class Ranker(Protocol):
    """Scores candidates by their features."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores (...) for features (..., F); higher is better."""

    def contributions(self, features: Tensor) -> Tensor:
        """Return what each feature (C, F) adds to each candidate's score, (C, F)."""

    def to(self, device: str) -> Self:
        """Move to a device."""


class SimpleRanker:
    """Ranks by one feature, and equals by popularity.

    Args:
        name: A name of ``SIMPLE``.

    Raises:
        InvalidArgumentError: If the name is not in ``SIMPLE``.
    """

    def __init__(self, name: str) -> None:
        if name not in SIMPLE:
            raise InvalidArgumentError(f"name must be one of {list(SIMPLE)}, got {name!r}")
        self.name = name
        self._column = FEATURES.index(SIMPLE[name])

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores (...) for features (..., F)."""
        return features[..., self._column] + _TIE_WEIGHT * features[..., _TIE]

    def contributions(self, features: Tensor) -> Tensor:
        """Return the feature in its own column, and 0 in the others, (C, F)."""
        found = torch.zeros_like(features)
        found[:, self._column] = features[:, self._column]
        return found

    def to(self, device: str) -> Self:
        """Return this ranker, which has no weights."""
        return self


def best_simple(choice: Mapping[str, Any], scope: str) -> SimpleRanker:
    """Return the simple recommender that was best on validation, but taste, which has a network.

    Args:
        choice: Why a bundle ranks as it does, as JSON values; without trials it is popularity.
        scope: Scope of the trials.
    """
    ndcg = {
        one["name"]: one["ndcg"]
        for one in choice.get("trials", ())
        if one["scope"] == scope and one["name"] in SIMPLE and one["name"] != TASTE
    }
    return SimpleRanker(max(ndcg, key=lambda name: ndcg[name], default=POPULARITY))


class Blend:
    """Ranks by the weighted sum of the scores of other rankers.

    Args:
        rankers: The other rankers; networks are put in evaluation mode.
        weights: Weight of each; 1 over the spread of its scores gives all the same say.
    """

    def __init__(self, rankers: Sequence[Ranker], weights: Sequence[float]) -> None:
        for ranker in rankers:
            if isinstance(ranker, nn.Module):
                ranker.eval()
        self.rankers = tuple(rankers)
        self.weights = tuple(weights)

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores (...) for features (..., F)."""
        return self.combine([ranker(features) for ranker in self.rankers])

    def combine(self, scores: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum (...) of the scores that the other rankers gave, (...) each."""
        parts = zip(scores, self.weights, strict=True)
        return torch.stack([weight * each for each, weight in parts]).sum(dim=0)

    def contributions(self, features: Tensor) -> Tensor:
        """Return the weighted sum of the contributions by all rankers, (C, F)."""
        parts = zip(self.rankers, self.weights, strict=True)
        found = [weight * ranker.contributions(features) for ranker, weight in parts]
        return torch.stack(found).sum(dim=0)

    def to(self, device: str) -> Self:
        """Move all rankers to a device."""
        for ranker in self.rankers:
            ranker.to(device)
        return self


def blend(rankers: Sequence[Ranker], features: Tensor) -> Blend:
    """Return a blend in which each ranker has the same say.

    Args:
        rankers: Rankers to blend.
        features: Features of typical candidates (n, F), by which the spread of scores is measured.
            A ranker that gives them all the same score has no say.
    """
    spreads = [float(ranker(features).std(correction=0)) for ranker in rankers]
    return Blend(rankers, [1 / spread if spread > _NO_SPREAD else 0.0 for spread in spreads])
