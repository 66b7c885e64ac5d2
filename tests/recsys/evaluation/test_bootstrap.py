"""Bootstrap intervals against resampling as a loop, theory and their invariants."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.evaluation.bootstrap import Estimate, difference, estimate, estimates, ratio

Values = NDArray[np.float64]


def loop_interval(values: Values, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """The percentile bootstrap as a textbook loop, with draws of its own."""
    generator = np.random.default_rng(seed)
    means = sorted(
        np.mean([values[i] for i in generator.integers(0, len(values), len(values))])
        for _ in range(resamples)
    )
    tail = (1 - level) / 2
    return np.quantile(means, tail), np.quantile(means, 1 - tail)


@pytest.fixture
def values() -> Values:
    return np.random.default_rng(3).beta(0.5, 2.0, size=200)


def test_interval_equals_the_loop_over_resamples(values: Values) -> None:
    got = estimate(values, resamples=2_000, level=0.9)
    low, high = loop_interval(values, 0.9, 2_000, seed=0)
    assert got.mean == pytest.approx(values.mean())
    np.testing.assert_allclose([got.low, got.high], [low, high], atol=1e-9)


def test_interval_has_the_width_that_the_normal_law_gives_a_mean(values: Values) -> None:
    got = estimate(values, resamples=4_000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert got.high - got.low == pytest.approx(2 * half, rel=0.06)


def test_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    samples = generator.normal(0.3, 1.0, size=(300, 80))
    held = [e.low <= 0.3 <= e.high for e in estimates(samples.T, resamples=400)]
    assert 0.90 <= np.mean(held) <= 0.98


def test_blocks_of_resamples_do_not_change_the_interval(values: Values) -> None:
    (whole,) = estimates(values[:, None], seed=4)
    (pieces,) = estimates(values[:, None], seed=4, numbers_at_once=7 * len(values))
    assert pieces == pytest.approx(whole)


def test_same_seed_gives_the_same_interval_and_another_seed_another(values: Values) -> None:
    assert estimate(values, seed=1) == estimate(values, seed=1)
    assert estimate(values, seed=1) != estimate(values, seed=2)


def test_columns_are_resampled_as_if_alone(values: Values) -> None:
    both = estimates(np.stack([values, values**2], axis=1))
    assert both[0] == pytest.approx(estimate(values))
    assert both[1] == pytest.approx(estimate(values**2))


def test_paired_difference_sees_a_gain_that_the_single_intervals_hide(values: Values) -> None:
    better = values + 0.01 + np.random.default_rng(5).normal(0, 0.01, size=len(values))
    assert estimate(better).low < estimate(values).high  # the two intervals overlap
    gain = difference(better, values)
    assert 0.0 < gain.low < gain.mean < gain.high
    assert gain.mean == pytest.approx((better - values).mean())


def test_difference_of_a_system_and_itself_is_exactly_zero(values: Values) -> None:
    assert difference(values, values) == Estimate(0.0, 0.0, 0.0)


def test_ratio_of_equal_weights_is_the_mean(values: Values) -> None:
    got = ratio(values * 3, np.full(len(values), 3.0))
    assert got == pytest.approx(estimate(values))


def test_ratio_equals_the_loop_over_resamples(values: Values) -> None:
    weights = np.random.default_rng(6).integers(0, 4, size=len(values)).astype(np.float64)
    got = ratio(values * weights, weights, seed=2)
    generator = np.random.default_rng(2)
    draws = (generator.integers(0, len(values), len(values)) for _ in range(1_000))
    ratios = [(values * weights)[draw].sum() / weights[draw].sum() for draw in draws]
    np.testing.assert_allclose([got.low, got.high], np.quantile(ratios, [0.025, 0.975]))
    assert got.mean == pytest.approx((values * weights).sum() / weights.sum())


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_ratio_over_nothing_or_less_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="denominators must be at least 0 and not all 0"):
        ratio(np.ones(3), np.full(3, bad))


def test_one_user_has_an_interval_of_no_width() -> None:
    assert estimate(np.array([0.25])) == Estimate(0.25, 0.25, 0.25)


def test_no_users_are_an_error() -> None:
    with pytest.raises(ValueError, match="U >= 1"):
        estimate(np.empty(0))


def test_value_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="values must be finite"):
        estimate(np.array([0.1, np.nan]))


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_level_outside_zero_and_one_is_an_error(values: Values, level: float) -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        estimate(values, level=level)


def test_no_resamples_are_an_error(values: Values) -> None:
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        estimate(values, resamples=0)


def test_lengths_that_disagree_are_an_error(values: Values) -> None:
    with pytest.raises(ValueError, match=r"theirs must have shape \(200,\)"):
        difference(values, values[1:])
