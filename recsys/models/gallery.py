"""Which product is on a photo: similarity to a gallery, and how far to trust it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """Turns similarities into probabilities; fitted on photos that training has not seen.

    Args:
        temperature: Of the softmax over the candidates.
        known_weights: Logistic weights of the best similarity and of its lead over the second.
        known_bias: Logistic bias.
        threshold: Probability from which a photo counts as a product of the catalogue.
    """

    temperature: float
    known_weights: tuple[float, float]
    known_bias: float
    threshold: float

    def known_probability(self, best: Tensor, lead: Tensor) -> Tensor:
        """Return the probability (B,) that the product is in the catalogue."""
        return torch.sigmoid(
            self.known_weights[0] * best + self.known_weights[1] * lead + self.known_bias
        )


def product_similarities(
    queries: Tensor, items: Tensor, prototypes: Tensor, prototype_rows: Tensor
) -> Tensor:
    """Return how similar each query is to each product, cosine, (B, N).

    A product is as similar as the closer of its catalogue embedding and, where there are pictures
    of it, their prototype (Snell et al., 2017, https://arxiv.org/abs/1703.05175).

    Args:
        queries: Unit-length photo embeddings (B, D).
        items: Item embeddings (N, D).
        prototypes: Mean embeddings of the pictures and labelled photos of a product (P, D), unit
            length.
        prototype_rows: Item row of each prototype, int64 (P,), distinct.
    """
    similarities = queries @ items.T  # (B, N)
    if len(prototype_rows) == 0:
        return similarities
    by_photo = queries @ prototypes.T  # (B, P)
    closer = torch.maximum(similarities[:, prototype_rows], by_photo)
    return similarities.index_copy(1, prototype_rows, closer)


def build_prototypes(photos: Tensor, photo_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit mean of the photos of each product (P, D) and the products' rows (P,)."""
    rows, inverse = torch.unique(photo_rows, return_inverse=True)
    sums = torch.zeros(len(rows), photos.shape[1]).index_add_(0, inverse, photos)
    return torch.nn.functional.normalize(sums, dim=1), rows


def best_and_lead(similarities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest similarity (B,) and how far it is above the second (B,)."""
    if similarities.shape[1] < 2:
        return similarities[:, 0], torch.zeros(len(similarities))
    top = similarities.topk(2, dim=1).values
    return top[:, 0], top[:, 0] - top[:, 1]


def fit_calibration(similarities: Tensor, rows: Tensor) -> Calibration:
    """Return a calibration from photos of known products.

    Each photo is also shown against the gallery *without* its own product: what "not in the
    catalogue" looks like. The threshold is where the two are told apart best (balanced accuracy).

    Args:
        similarities: Held-out photos against the gallery (B, N), N >= 2.
        rows: The product on each photo, int64 (B,).

    Raises:
        ValueError: If there are no photos or fewer than two products.
    """
    if len(rows) == 0 or similarities.shape[1] < 2:
        raise ValueError(
            "calibration needs at least one photo and two products, got similarities of shape "
            f"{tuple(similarities.shape)}"
        )
    without = similarities.scatter(1, rows[:, None], -1.0)
    shown, hidden = best_and_lead(similarities), best_and_lead(without)
    # (2B, 2): photos of known products, then the same as if their product were not in the catalogue
    signs = torch.stack([torch.cat(pair) for pair in zip(shown, hidden, strict=True)], dim=1)
    known = torch.cat([torch.ones(len(rows)), torch.zeros(len(rows))])
    weights, bias = _fit_logistic(signs.double(), known.double())
    probabilities = torch.sigmoid(signs.double() @ weights + bias)
    return Calibration(
        temperature=_fit_temperature(similarities, rows),
        known_weights=(float(weights[0]), float(weights[1])),
        known_bias=float(bias),
        threshold=_best_threshold(probabilities.numpy(), known.numpy()),
    )


def _fit_logistic(signs: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights (2,) and bias of a logistic regression, by LBFGS with a slight ridge."""
    weights = torch.zeros(3, dtype=signs.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = signs @ weights[:2] + weights[2]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, known)
        value = value + 1e-4 * weights[:2].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights[:2].detach(), weights[2].detach()


def _fit_temperature(similarities: Tensor, rows: Tensor) -> float:
    """Return the temperature with the least negative log-likelihood, over a geometric grid."""
    temperatures = torch.logspace(-3, 0, 61)
    losses = [
        float(torch.nn.functional.cross_entropy(similarities / temperature, rows))
        for temperature in temperatures
    ]
    return float(temperatures[int(np.argmin(losses))])


def _best_threshold(
    probabilities: np.ndarray[tuple[int], np.dtype[np.float64]],
    known: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """Return the midpoint between neighbouring probabilities with the best balanced accuracy."""
    order = np.argsort(probabilities)
    # Moving the threshold above a value loses it if it was known and gains it if it was not.
    change = np.where(known[order] > 0, -1.0, 1.0)
    cut = int(np.argmax(np.concatenate([[0.0], np.cumsum(change)])))
    edges = np.concatenate([[0.0], probabilities[order], [1.0]])
    return float((edges[cut] + edges[cut + 1]) / 2)
