"""Kernel regression on a network's features: high only near photos of one product."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LANDMARKS = 4_000  # photos that others are compared with; solving takes their number cubed
MAX_WEIGHTS = 10_000_000  # landmarks times products that are kept
WIDTH = 0.5  # factor of the squared distance in the kernel
RIDGE = 0.05  # added to the kernel's diagonal, as for noise in the labels


class Regression(NamedTuple):
    """A regression of "is on the photo", 1 or 0 for each product, on similarity to labelled photos.

    The mean of a Gaussian process with labels as targets (Rasmussen and Williams, 2006, section
    6.5, https://gaussianprocess.org/gpml). Unlike a softmax it falls to 0 for every product where a
    photo resembles none, and unlike the nearest photo it knows which resemblance all products
    share. That makes it the best single sign of a product that is not in the catalogue.
    """

    mean: Tensor  # (F,): features are counted from here, and scaled to unit length
    landmarks: Tensor  # (M, F), unit length
    weights: Tensor  # (M, P)
    rows: Tensor  # int64 (P,): item row of each product

    def scores(self, features: Tensor) -> Tensor:
        """Return about 1 for the product on each photo and 0 for others (B, P).

        Args:
            features: Features of B photos (B, F), from the network that the regression was fitted
                on.
        """
        unit = F.normalize(features.to(self.mean) - self.mean, dim=1)
        return _kernel(unit, self.landmarks) @ self.weights


def fit_regression(
    features: Tensor,
    rows: Tensor,
    *,
    max_landmarks: int = MAX_LANDMARKS,
    max_weights: int = MAX_WEIGHTS,
) -> Regression:
    """Return the regression on labelled photos, without products for no photo.

    With more photos than landmarks, every photo is still fitted, by its similarity to the landmarks
    (the subset of regressors of Rasmussen and Williams, section 8.3.1). These are evenly spaced in
    the order of the photos.

    Args:
        features: Features of Q photos (Q, F).
        rows: Item row of the product on each photo, int64 (Q,).
        max_landmarks: Maximum number of landmarks.
        max_weights: Maximum number of landmarks times products, to bound memory.
    """
    if len(rows) == 0:
        empty = features.new_zeros(0, features.shape[1])
        return Regression(features.new_zeros(features.shape[1]), empty, empty[:, :0], rows)
    products, codes = rows.unique(return_inverse=True)
    mean = features.double().mean(dim=0)
    unit = F.normalize(features.double() - mean, dim=1)
    wanted = F.one_hot(codes, len(products)).double()  # (Q, P)
    at_most = min(max_landmarks, max(1, max_weights // len(products)), len(unit))
    landmarks = unit[torch.linspace(0, len(unit) - 1, at_most).long()]
    within = _kernel(landmarks, landmarks) + RIDGE * torch.eye(at_most, dtype=torch.float64)
    if at_most == len(unit):
        weights = torch.linalg.solve(within, wanted)
    else:
        across = _kernel(unit, landmarks)  # (Q, M)
        weights = torch.linalg.solve(across.T @ across + RIDGE * within, across.T @ wanted)
    return Regression(mean.float(), landmarks.float(), weights.float(), products)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    """Return the Gaussian kernel of unit vectors (A, F) and (B, F), (A, B)."""
    return torch.exp(-WIDTH * (2.0 - 2.0 * one @ other.T))
