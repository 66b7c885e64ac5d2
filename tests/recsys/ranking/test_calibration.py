import json
import math

import pytest
import torch
from torch import Tensor

from recsys.ranking.calibration import ACTIVITY, Calibration, Effect
from recsys.ranking.features import FEATURES

CURVE = Calibration(
    center=10.0,
    spread=2.0,
    scores=(-1.0, 0.0, 2.0),
    log_odds=(-6.0, -4.0, 0.0),
    effects=(Effect(0.5, 1.0, 3.0), Effect(0.0, 0.0, 9.0), Effect(-1.0, 0.0, 2.0)),
)


def features(history_length: float = 1.0, n_visits: float = 0.0, days_away: float = 0.0) -> Tensor:
    found = torch.zeros(len(FEATURES))
    for name, value in zip(ACTIVITY, (history_length, n_visits, days_away), strict=True):
        found[FEATURES.index(name)] = value
    return found


def probability(score: float, of: Tensor | None = None, calibration: Calibration = CURVE) -> float:
    row = features() if of is None else of
    return float(calibration(torch.tensor([score]), row[None])[0])


@pytest.mark.parametrize(
    ("score", "log_odds"),
    [(8.0, -6.0), (9.0, -5.0), (10.0, -4.0), (12.0, -2.0), (14.0, 0.0)],
)
def test_log_odds_are_on_straight_lines_between_the_points(score: float, log_odds: float) -> None:
    wanted = 1 / (1 + math.exp(-(log_odds + 0.5)))  # one event adds 0.5
    assert probability(score) == pytest.approx(wanted, rel=1e-6)


def test_beyond_the_ends_the_probability_stays() -> None:
    assert probability(-500.0) == probability(8.0)
    assert probability(-math.inf) == probability(8.0)
    assert probability(500.0) == probability(14.0)


def test_the_effects_of_a_user_count_within_what_was_seen() -> None:
    odds = [probability(10.0, features(history_length=n)) for n in (2.0, 3.0, 50.0)]
    assert odds[0] < odds[1] == odds[2]
    assert probability(10.0, features(days_away=1.0)) == pytest.approx(1 / (1 + math.exp(4.5)))


def test_nothing_is_said_of_a_user_without_events() -> None:
    assert math.isnan(probability(10.0, features(history_length=0.0)))


def test_probabilities_of_a_user_never_fall_where_scores_rise() -> None:
    scores = torch.linspace(0, 20, 301).repeat(2, 1)
    of = torch.stack([features(2.5, 1.0, 0.3), features(1.1, 4.0, 9.0)])[:, None]
    found = CURVE(scores, of.expand(2, 301, -1))
    assert found.dtype == torch.float32
    assert found.shape == scores.shape
    assert (found.diff(dim=1) >= 0).all()
    assert (found > 0).all()
    assert (found < 1).all()


def test_a_calibration_is_read_as_it_was_written() -> None:
    assert Calibration.from_json(json.loads(json.dumps(CURVE.to_json()))) == CURVE


def test_an_effect_that_is_missing_is_an_error() -> None:
    values = CURVE.to_json()
    del values["effects"]["days_away"]
    with pytest.raises(KeyError, match="days_away"):
        Calibration.from_json(values)
