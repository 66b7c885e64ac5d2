"""Permutation tests against scipy, Holm by hand, and power by simulation."""

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from recsys.evaluation.significance import (
    detectable_differences,
    holm,
    paired_p_values,
)


def test_few_users_get_the_exact_p_value_of_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1.0, size=(10, 3))
    expected = [
        permutation_test(
            (column,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
        ).pvalue
        for column in differences.T
    ]
    np.testing.assert_allclose(paired_p_values(differences), expected, atol=1e-12)


def test_the_observed_signs_and_their_mirror_always_count() -> None:
    differences = np.random.default_rng(6).random(size=(12, 500))  # whose sum is the largest
    assert (paired_p_values(differences) == 2 / 2**12).all()


def test_random_signs_never_make_a_p_value_of_zero() -> None:
    assert paired_p_values(np.ones((60, 1)), resamples=99).tolist() == [1 / 100]


def test_many_users_get_about_the_p_value_of_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1.0, size=(500, 1))
    expected = ttest_1samp(differences[:, 0], 0).pvalue
    assert paired_p_values(differences)[0] == pytest.approx(expected, abs=0.01)


def test_where_nothing_differs_the_p_value_is_one() -> None:
    assert paired_p_values(np.zeros((40, 2))).tolist() == [1.0, 1.0]
    swapped = np.tile([[0.5], [-0.5]], (40, 1))
    assert paired_p_values(swapped) == pytest.approx([1.0])


def test_the_p_value_does_not_depend_on_which_system_is_ours_nor_on_users_that_do_not_differ() -> (
    None
):
    differences = np.random.default_rng(2).normal(0.2, 1.0, size=(9, 1))
    padded = np.concatenate([-differences, np.zeros((30, 1))])
    np.testing.assert_allclose(paired_p_values(padded), paired_p_values(differences))


def test_chance_falls_below_the_threshold_as_often_as_the_threshold_says() -> None:
    draws = np.random.default_rng(3).normal(size=(60, 400))
    found = (paired_p_values(draws, resamples=999) < 0.05).mean()
    assert 0.02 < found < 0.08


def test_holm_equals_the_steps_by_hand() -> None:
    # Sorted: .01 x 4, .02 x 3, .03 x 2, .5 x 1; none may be below the one before it.
    found = holm(np.array([0.03, 0.01, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, 0.5, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([0.2])).tolist() == [0.2]


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_cases() -> None:
    generator = np.random.default_rng(4)
    size = detectable_differences(generator.normal(size=(200, 1)))[0]
    trials = generator.normal(size, 1.0, size=(200, 500))
    found = (paired_p_values(trials, resamples=999) < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.06)


def test_four_times_the_users_find_half_the_difference_and_more_systems_find_less() -> None:
    some = np.random.default_rng(5).normal(size=(100, 1))
    many = np.tile(some, (4, 1))
    assert detectable_differences(many)[0] == pytest.approx(
        detectable_differences(some)[0] / 2, rel=0.01
    )
    assert detectable_differences(some, family=8)[0] > detectable_differences(some)[0]


def test_differences_of_nobody_or_not_a_number_are_an_error() -> None:
    with pytest.raises(ValueError, match="U >= 1"):
        paired_p_values(np.empty((0, 2)))
    with pytest.raises(ValueError, match="differences must be finite"):
        paired_p_values(np.array([[np.nan]]))
