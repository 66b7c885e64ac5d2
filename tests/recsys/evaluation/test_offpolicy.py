"""Estimators on logs of a small world, whose true values are known by enumeration."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.arrays import Doubles
from recsys.errors import DataError, InvalidArgumentError
from recsys.evaluation.offpolicy import PolicyValue, evaluate_policy

CONTEXTS = np.array([0.5, 0.3, 0.2])
OLD = np.array([[0.6, 0.2, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]])
NEW = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
REWARDS = np.array([[0.1, 0.2, 0.5, 0.9], [0.8, 0.3, 0.2, 0.1], [0.4, 0.1, 0.6, 0.2]])
TRUTH = float(CONTEXTS @ (NEW * REWARDS).sum(axis=1))
LOGGED = float(CONTEXTS @ (OLD * REWARDS).sum(axis=1))


def logged(n: int, seed: int, model: Doubles | None = None) -> pl.DataFrame:
    """A log of the old policy, with the predictions of a model if one is given."""
    generator = np.random.default_rng(seed)
    contexts = generator.choice(3, size=n, p=CONTEXTS)
    actions = (generator.random(n)[:, None] > OLD[contexts].cumsum(axis=1)).sum(axis=1)
    columns = {
        "reward": (generator.random(n) < REWARDS[contexts, actions]).astype(float),
        "propensity": OLD[contexts, actions],
        "target_propensity": NEW[contexts, actions],
    }
    if model is not None:
        columns["predicted_reward"] = model[contexts, actions]
        columns["expected_reward"] = (NEW * model).sum(axis=1)[contexts]
    return pl.DataFrame(columns)


def every_choice() -> pl.DataFrame:
    """A log in which each choice is as frequent as probable and earns its mean reward."""
    counts = np.rint(CONTEXTS[:, None] * OLD * 1_000).astype(int).ravel()
    columns = {"reward": REWARDS, "propensity": OLD, "target_propensity": NEW}
    return pl.DataFrame({name: np.repeat(values, counts) for name, values in columns.items()})


@pytest.fixture(scope="module")
def runs() -> list[PolicyValue]:
    """Estimates from 200 logs, with a model that is wrong everywhere."""
    return [evaluate_policy(logged(400, seed, model=1 - REWARDS)) for seed in range(200)]


def means(runs: list[PolicyValue], name: str) -> Doubles:
    return np.array([getattr(run, name).mean for run in runs])


def test_a_log_with_every_choice_in_proportion_gives_the_true_value_exactly() -> None:
    found = evaluate_policy(every_choice())
    assert found.ips.mean == pytest.approx(TRUTH, rel=1e-12)
    assert found.snips.mean == pytest.approx(TRUTH, rel=1e-12)
    assert found.mean_weight.mean == pytest.approx(1, rel=1e-12)
    assert found.logged.mean == pytest.approx(LOGGED, rel=1e-12)


@pytest.mark.parametrize("name", ["ips", "snips", "doubly_robust"])
def test_estimators_are_unbiased_whatever_the_model_says(
    name: str, runs: list[PolicyValue]
) -> None:
    values = means(runs, name)
    assert abs(values.mean() - TRUTH) < 3.5 * values.std() / np.sqrt(len(values))
    assert abs(TRUTH - LOGGED) > 10 * values.std() / np.sqrt(len(values))  # not by chance


def test_the_direct_method_is_as_wrong_as_its_model(runs: list[PolicyValue]) -> None:
    assert means(runs, "direct").mean() == pytest.approx(1 - TRUTH, abs=0.01)


def test_intervals_hold_the_true_value_about_as_often_as_they_say(runs: list[PolicyValue]) -> None:
    for name in ("ips", "snips", "doubly_robust"):
        held = [getattr(r, name).low <= TRUTH <= getattr(r, name).high for r in runs]
        assert 0.88 <= np.mean(held) <= 0.99


def test_a_right_model_makes_doubly_robust_steadier_than_weights_alone() -> None:
    logs = [evaluate_policy(logged(400, seed, model=REWARDS)) for seed in range(60)]
    assert means(logs, "doubly_robust").std() < 0.8 * means(logs, "ips").std()
    assert means(logs, "direct").mean() == pytest.approx(TRUTH, abs=0.01)


def test_the_same_policy_earns_what_was_logged() -> None:
    log = logged(300, 0).with_columns(target_propensity="propensity")
    found = evaluate_policy(log)
    assert found.ips == found.snips == found.logged
    assert found.effective_sample_size == pytest.approx(300)


def test_the_effective_sample_size_of_unequal_weights_by_hand() -> None:
    found = evaluate_policy(log(propensity=[0.5, 0.5, 0.1], target_propensity=[0.5, 0.0, 0.3]))
    assert found.effective_sample_size == pytest.approx((1 + 3) ** 2 / (1 + 9))
    assert found.ips.mean == pytest.approx((1 + 3) / 3)
    assert found.snips.mean == pytest.approx((1 + 3) / (1 + 3))
    assert found.largest_weight == pytest.approx(3)


def test_clipped_weights_are_counted_and_cut() -> None:
    table = log(propensity=[0.5, 0.5, 0.1], target_propensity=[0.5, 0.0, 0.3])
    found = evaluate_policy(table, max_weight=2.0)
    assert found.n_clipped == 1
    assert found.ips.mean == pytest.approx((1 * 1 + 0 + 2 * 1) / 3)
    assert found.largest_weight == pytest.approx(3)
    assert evaluate_policy(table).n_clipped == 0


def test_rows_of_one_user_are_drawn_together() -> None:
    one = logged(200, 1)
    users = pl.Series("user_id", [f"user {n}" for n in range(200)])
    alone = evaluate_policy(one.with_columns(users))
    assert alone.ips == pytest.approx(evaluate_policy(one).ips, abs=0.02)
    repeated = pl.concat([one.with_columns(users)] * 9)
    assert evaluate_policy(repeated).ips == pytest.approx(alone.ips, abs=1e-9)
    strangers = evaluate_policy(repeated.drop("user_id"))  # nine times the rows, and no news
    assert strangers.ips.high - strangers.ips.low < (alone.ips.high - alone.ips.low) / 2


def log(**changes: list[Any]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        "reward": [1.0, 0.0, 1.0],
        "propensity": [0.5, 0.5, 0.5],
        "target_propensity": [0.5, 0.5, 0.5],
    }
    return pl.DataFrame(columns | changes)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, None, np.nan])
def test_a_propensity_that_is_zero_missing_or_impossible_is_an_error(bad: float | None) -> None:
    wanted = r"log: propensity must be above 0 and at most 1, .* got .* in row 2, and 1 such rows"
    with pytest.raises(DataError, match=wanted):
        evaluate_policy(log(propensity=[0.5, bad, 0.5]))


def test_a_log_without_propensities_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"propensity must be above 0 .* got an empty cell in row 1"
    ):
        evaluate_policy(log().drop("propensity"))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"reward": [1.0, np.nan, 0.0]}, "reward must be a finite number, got nan in row 2"),
        ({"target_propensity": [0.5, 1.1, 0.5]}, "target_propensity must be from 0 to 1, got 1.1"),
        ({"target_propensity": [0.0, 0.0, 0.0]}, "choices that the new policy makes, got"),
        ({"predicted_reward": [0.1, 0.1, 0.1]}, "predicted_reward and expected_reward, or neither"),
        ({"user_id": ["a", None, "b"]}, "user_id must be an id, or no row has one"),
    ],
)
def test_a_bad_log_is_an_error(changes: dict[str, list[Any]], wanted: str) -> None:
    with pytest.raises(DataError, match=wanted):
        evaluate_policy(log(**changes))


def test_a_largest_weight_of_nothing_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="max_weight must be above 0 or None, got 0"):
        evaluate_policy(log(), max_weight=0)
