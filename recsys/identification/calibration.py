"""From evidence to probabilities: one fitted weight for every source, and two thresholds."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recsys.identification.evidence import Evidence


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, with its precision and coverage on photos of products it was not fitted on.

    Args:
        threshold: Smallest probability that passes; None if no threshold reaches the wanted
            precision.
        precision: Precision of the answers given; the risk is 1 - precision. Without a threshold,
            the best precision that any threshold reaches. None if it was not measured.
        coverage: Share of the photos that got an answer; None if it was not measured.
    """

    threshold: float | None
    precision: float | None = None
    coverage: float | None = None

    def passes(self, probability: float) -> bool:
        """Return whether the probability reaches the threshold."""
        return self.threshold is not None and probability >= self.threshold


class Calibrated(Protocol):
    """Turns evidence into probabilities, and knows which of them are high enough."""

    @property
    def known(self) -> OperatingPoint:
        """Probability from which a photo is said to show a product of the catalogue."""

    @property
    def named(self) -> OperatingPoint:
        """Probability from which a product, or a group of a few, is named."""

    def sentence(self) -> str:
        """What is promised of the products that are named."""

    def probabilities(self, evidence: Evidence) -> Tensor:
        """Return probabilities of the products and, last, of "not in the catalogue" (B, N + 1)."""


@dataclass(frozen=True)
class Calibration:
    """A softmax over the products and "not in the catalogue".

    This is a conditional logit (McFadden, 1974) with an outside option. The utility of a product
    is the weighted sum of its sources, each counted above its pivot. A source that a product lacks
    adds nothing, as if its value were the pivot, so that products with few sources can compete.

    Args:
        weights: Weight of each of ``SOURCES``, positive.
        pivots: Value from which each source speaks for a product instead of against it.
        unknown: Utility of "not in the catalogue".
        known: Threshold for saying that a photo shows a product of the catalogue.
        named: Threshold for naming a product or a group.
        wanted_precision: Precision that both thresholds were chosen for.
        unknown_share: Share of photos expected to show something outside the catalogue.
        error: Expected calibration error on the photos that the thresholds were chosen on.
        n_photos: Number of those photos.
    """

    weights: tuple[float, ...]
    pivots: tuple[float, ...]
    unknown: float
    known: OperatingPoint
    named: OperatingPoint
    wanted_precision: float | None = None
    unknown_share: float | None = None
    error: float | None = None
    n_photos: int = 0

    def probabilities(self, evidence: Evidence) -> Tensor:
        """Return probabilities of the products and, last, of "not in the catalogue" (B, N + 1)."""
        values = evidence.values
        parameters = (self.weights, self.pivots, self.unknown)
        return utilities(evidence, *(values.new_tensor(one) for one in parameters)).softmax(dim=1)

    def sentence(self) -> str:
        """Return what is promised of the products that are named, or that none will be."""
        named, photos = self.named, f"{self.n_photos:,} photos of val"
        if named.threshold is None:
            best = "" if named.precision is None else f": the best reaches {named.precision:.2f}"
            return (
                "no photo gets a product's name, as no threshold reaches the precision "
                f"{self.wanted_precision} on {photos}{best}; more photos, or a lower "
                "[identification] precision, would help"
            )
        if named.precision is None or named.coverage is None:
            return f"products are named from the probability {named.threshold:.2f}"
        return (
            f"products are named on {100 * named.coverage:.0f} % of photos, "
            f"{100 * named.precision:.0f} % of them rightly, as measured on {photos}"
        )


def utilities(evidence: Evidence, weights: Tensor, pivots: Tensor, unknown: Tensor) -> Tensor:
    """Return logits over the products and, last, over "not in the catalogue" (B, N + 1).

    Args:
        evidence: Evidence of B photos; a product without any source gets minus infinity.
        weights: Weight of each source (S,).
        pivots: Pivot of each source (S,).
        unknown: Utility of "not in the catalogue", a scalar.
    """
    present = evidence.present.to(evidence.values)
    # Values are 0 where a source is absent.
    logits = evidence.values @ weights - present @ (weights * pivots)
    logits = logits.masked_fill(~evidence.present.any(dim=2), float("-inf"))
    return torch.cat([logits, unknown.expand(len(logits), 1)], dim=1)
