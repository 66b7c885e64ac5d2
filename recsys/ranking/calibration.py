"""From a ranker's score to the probability that the user takes the item."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from recsys.ranking.features import FEATURES

# Features of the user alone, by which the probabilities of all items rise or fall together.
ACTIVITY = ("history_length", "n_visits", "days_away")
ACTIVITY_COLUMNS = [FEATURES.index(name) for name in ACTIVITY]
_HISTORY = FEATURES.index("history_length")


class Effect(NamedTuple):
    """What one feature of the user adds to the log-odds.

    Args:
        weight: Log-odds for each unit of the feature.
        low: Smallest value among the users that it was fitted on; a smaller one counts as it.
        high: Largest value, likewise.
    """

    weight: float
    low: float
    high: float


class Calibration(NamedTuple):
    """A probability that rises with the score, and depends on how active the user is.

    The log-odds are a line through points, over the score in deviations from its mean, plus an
    effect of each of ``ACTIVITY``. Only the order of one user's scores is trained, so the effects
    compare users. They are alike for all items: the order of a user's items is that of the scores.

    Args:
        center: Mean score of items that were not taken.
        spread: Standard deviation of these scores.
        scores: Scores of the points in deviations, rising (P,), P at least 2.
        log_odds: Log-odds at the points, not falling (P,). Beyond the first and the last point they
            stay.
        effects: Effect of each of ``ACTIVITY``, in this order.
    """

    center: float
    spread: float
    scores: tuple[float, ...]
    log_odds: tuple[float, ...]
    effects: tuple[Effect, ...]

    def __call__(self, scores: Tensor, features: Tensor) -> Tensor:
        """Return probabilities, float32 (...), NaN for a user without events.

        Nobody is fitted on without events: that they came at all is known of them only afterwards.

        Args:
            scores: Scores of candidates (...).
            features: Features of the candidates (..., F).
        """
        log_odds = self.curve((scores.double() - self.center) / self.spread)
        for column, effect in zip(ACTIVITY_COLUMNS, self.effects, strict=True):
            values = features[..., column].double().clamp(effect.low, effect.high)
            log_odds = log_odds + effect.weight * values
        # Rounded once, so that they do not depend on what else is in the batch.
        probabilities = log_odds.sigmoid().float()
        return probabilities.masked_fill(features[..., _HISTORY] == 0, torch.nan)

    def curve(self, deviations: Tensor) -> Tensor:
        """Return the log-odds of scores in deviations, float64 (...), without the effects."""
        points, heights = (
            torch.tensor(one, dtype=torch.float64, device=deviations.device)
            for one in (self.scores, self.log_odds)
        )
        after = torch.searchsorted(points, deviations.contiguous()).clamp(1, len(points) - 1)
        left, low = points[after - 1], heights[after - 1]
        share = ((deviations - left) / (points[after] - left)).clamp(0, 1)
        return low + share * (heights[after] - low)

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        effects = {
            name: effect._asdict() for name, effect in zip(ACTIVITY, self.effects, strict=True)
        }
        return {**self._asdict(), "effects": effects}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the calibration that ``to_json`` wrote."""
        effects = tuple(Effect(**values["effects"][name]) for name in ACTIVITY)
        numbers = {name: tuple(values[name]) for name in ("scores", "log_odds")}
        return cls(values["center"], values["spread"], effects=effects, **numbers)


class Calibrations(NamedTuple):
    """The calibration of each scope; None where it could not be fitted.

    Args:
        all: Where the whole catalogue is ranked.
        new: Where the user's own items are left out.
    """

    all: Calibration | None = None
    new: Calibration | None = None


UNCALIBRATED = Calibrations()
