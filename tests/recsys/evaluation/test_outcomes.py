"""Probabilities of a bundle on its test window, recomputed from single answers."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.data.timestamps import from_us
from recsys.errors import DataError
from recsys.evaluation import outcomes
from recsys.evaluation.outcomes import judge, report_probabilities
from recsys.evaluation.probabilities import log_losses
from recsys.ranking.calibration import UNCALIBRATED
from recsys.recommender import Recommender
from recsys.training.cuts import on_offer

DAY_US = 86_400_000_000


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


def test_the_figures_are_those_of_single_answers(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "MAX_USERS", 12)
    (row,) = report_probabilities(bundle, ["all"])
    split_us = bundle.split_us
    assert isinstance(split_us, int)
    split = from_us(split_us)
    events = bundle.events
    past = events.filter(pl.col("timestamp") < split)
    end = from_us(split_us + round(bundle.statistics.tempo.window_days * DAY_US))
    later = events.filter(
        pl.col("timestamp").is_between(split, end, closed="left"),
        pl.col("kind").is_in(bundle.target_kinds),
    )
    taken = set(later.select("user_id", "item_id").iter_rows())
    known = set(past["user_id"])
    users = [user for user in bundle.interactions.user_ids if user in known]
    order = np.random.default_rng(0).permutation(len(users))[:12]
    recommender = Recommender(bundle, as_of=split_us)
    offered = on_offer(bundle.items, bundle.interactions, split_us)
    absent = [one for one, on in zip(bundle.items["item_id"], offered, strict=True) if not on]
    stated, happened = [], []
    for user in sorted(order.tolist()):
        for result in recommender.recommend(users[user], 500, now=split, exclude=absent):
            assert result.probability is not None
            stated.append(result.probability)
            happened.append((users[user], result.item_id) in taken)
    assert (row.scope, row.n_users, row.n_pairs) == ("all", 12, len(stated))
    assert row.stated == pytest.approx(np.mean(stated))
    assert row.happened == pytest.approx(np.mean(happened))
    losses = log_losses(np.array(stated), np.array(happened))
    assert row.log_loss.mean == pytest.approx(losses.mean())
    assert 0 < sum(happened) < len(happened)


def test_true_probabilities_are_calibrated_and_better_than_one_rate() -> None:
    generator = np.random.default_rng(0)
    true = generator.beta(0.3, 10, 200_000)
    happened = generator.random(200_000) < true
    users = np.repeat(np.arange(400), 500)
    row = judge("all", 30.0, users, true, happened)
    assert row.n_users == 400
    assert row.calibration_error < 0.001
    assert row.log_loss.high < row.log_loss_of_rate
    for group in row.groups:
        assert group.happened == pytest.approx(group.stated, rel=0.1)
        assert group.n_pairs * group.stated == pytest.approx(true.sum() / 5, rel=0.01)
    assert sum(group.n_pairs for group in row.groups) == 200_000
    assert row.groups[-1].stated > 5 * row.groups[0].stated
    doubled = judge("all", 30.0, users, np.minimum(2 * true, 1.0), happened)
    assert doubled.calibration_error == pytest.approx(true.mean(), rel=0.1)


def test_one_rate_for_all_has_the_loss_of_one_rate() -> None:
    happened = np.arange(1_000) % 10 == 0
    row = judge("new", 7.0, np.arange(1_000) // 100, np.full(1_000, 0.1), happened)
    assert row.log_loss.mean == pytest.approx(row.log_loss_of_rate)
    assert row.calibration_error == pytest.approx(0, abs=0.02)


def test_a_bundle_without_probabilities_has_no_figures(bundle: Bundle) -> None:
    bundle.held_out.calibrations = UNCALIBRATED
    assert report_probabilities(bundle, ["all", "new", "cold"]) == []


def test_events_that_end_before_the_window_are_an_error(bundle: Bundle) -> None:
    late = datetime(2025, 12, 20, tzinfo=UTC)
    assert bundle.held_out.calibrations.all is not None
    bundle.split_us = round(late.timestamp() * 1e6)
    with pytest.raises(
        DataError, match=r"must cover the window of .* days, got .* earlier \[split\]"
    ):
        report_probabilities(bundle, ["all"])
