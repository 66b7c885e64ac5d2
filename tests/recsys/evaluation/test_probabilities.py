"""Log-loss against scikit-learn, and calibration of lists with planted probabilities."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

from recsys.evaluation.lists import ForeignList, read_list
from recsys.evaluation.probabilities import (
    calibration_error,
    log_losses,
    score_probabilities,
)
from recsys.evaluation.queries import Queries

NONE = np.empty(0, dtype=np.int64)


def test_log_loss_equals_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    stated = np.append(generator.random(200), [0.0, 1.0, 1.0])
    happened = np.append(generator.random(200) < 0.4, [True, False, True])
    found = log_losses(stated, happened).mean()
    assert found == pytest.approx(log_loss(happened, stated), rel=1e-12)


def test_calibration_error_of_two_bins_by_hand() -> None:
    stated = np.array([0.1, 0.2, 0.7, 0.8])
    happened = np.array([False, True, True, True])
    # (|0.15 - 0.5| * 2 + |0.75 - 1| * 2) / 4
    assert calibration_error(stated, happened, n_bins=2) == pytest.approx(0.3)


def test_true_probabilities_are_calibrated_and_doubled_ones_are_not() -> None:
    generator = np.random.default_rng(1)
    true = generator.random(100_000) / 2
    happened = generator.random(100_000) < true
    assert calibration_error(true, happened) < 0.01
    assert calibration_error(2 * true, happened) == pytest.approx(0.25, abs=0.01)


def test_a_certain_probability_belongs_to_the_last_bin() -> None:
    assert calibration_error(np.array([1.0]), np.array([True])) == 0


def listed(**columns: list[float] | list[float | None]) -> ForeignList:
    table = pl.DataFrame(
        {"user_id": ["ann", "ann", "bob", "cy"], "item_id": ["a", "b", "a", "a"], **columns}
    )
    return read_list(table, name="als", user_ids=["ann", "bob", "cy"], item_ids=["a", "b"])


def asked(**changes: object) -> Queries:
    """Ann and Bob are asked; both take "a"."""
    values: dict = {
        "scope": "all",
        "now_us": 0,
        "user_rows": np.array([0, 1]),
        "relevant": [np.array([0])] * 2,
        "excluded": [NONE] * 2,
        "candidates": np.ones(2, dtype=bool),
    }
    return Queries(**(values | changes))


def test_the_pairs_of_asked_users_are_scored_each_as_often() -> None:
    stated = [0.9, 0.3, 0.5, 0.1]
    found = score_probabilities(listed(rank=[1, 2, 1, 1], probability=stated), asked())
    assert found is not None
    assert found.n_pairs == 3
    expected = -(np.log(0.9) + np.log(0.7) + np.log(0.5)) / 3
    assert found.log_loss.mean == pytest.approx(expected)
    assert found.log_loss.low <= found.log_loss.mean <= found.log_loss.high


def test_pairs_that_are_not_ranked_are_not_scored() -> None:
    one = listed(rank=[1, 2, 1, 1], probability=[0.9, 0.3, 0.5, 0.1])
    found = score_probabilities(one, asked(excluded=[np.array([1]), NONE]))
    assert found is not None
    assert found.n_pairs == 2
    assert score_probabilities(one, asked(candidates=np.zeros(2, dtype=bool))) is None


def test_rows_without_a_probability_are_not_scored() -> None:
    stated = [0.9, None, None, 0.1]
    found = score_probabilities(listed(rank=[1, 2, 1, 1], probability=stated), asked())
    assert found is not None
    assert found.n_pairs == 1
    assert found.log_loss.mean == pytest.approx(-np.log(0.9))
    nobody_asked = [None, None, None, 0.1]
    assert score_probabilities(listed(rank=[1, 2, 1, 1], probability=nobody_asked), asked()) is None


def test_a_list_of_scores_has_no_probabilities() -> None:
    assert score_probabilities(listed(score=[0.9, 0.3, 0.5, 0.1]), asked()) is None
