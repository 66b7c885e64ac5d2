"""How bundles calibrated before each source had a weight of its own: the nearest product."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.identification.evidence import ITEM, PHOTOS, Evidence
from recsys.identification.groups import OperatingPoint


@dataclass(frozen=True)
class NearestCalibration:
    """A softmax of similarities, and a logistic regression for being in the catalogue.

    A product is as similar as the closer of its item embedding and its prototype.

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

    @property
    def known(self) -> OperatingPoint:
        """The threshold; what it gave was not kept."""
        return OperatingPoint(self.threshold)

    @property
    def answers(self) -> OperatingPoint:
        """None: how often the first candidate is right was not measured."""
        return OperatingPoint(None)

    def probabilities(self, evidence: Evidence) -> Tensor:
        """Return the probability of each product, and last of none of them (B, N + 1)."""
        absent = ~evidence.present[..., [ITEM, PHOTOS]]
        both = evidence.values[..., [ITEM, PHOTOS]].masked_fill(absent, -1.0)
        similarities = both.max(dim=2).values  # (B, N)
        top = similarities.topk(min(2, similarities.shape[1]), dim=1).values
        best, lead = top[:, 0], top[:, 0] - top[:, -1]
        logits = self.known_weights[0] * best + self.known_weights[1] * lead + self.known_bias
        known = torch.sigmoid(logits)[:, None]
        candidates = (similarities / self.temperature).masked_fill(absent.all(dim=2), float("-inf"))
        return torch.cat([known * candidates.softmax(dim=1), 1 - known], dim=1)
