from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.grocery_identify import (
    N_HELD_OUT,
    Tables,
    auroc,
    calibration_error,
    coverage_at,
    hold_out,
)


def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_as_half() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.integers(0, 5, 30) / 4, random.integers(0, 5, 20) / 4
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))


def test_coverage_is_the_largest_share_of_answers_that_reaches_the_precision() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    assert coverage_at(0.95, scores, right) == pytest.approx(2 / 5)
    assert coverage_at(0.75, scores, right) == pytest.approx(4 / 5)
    assert coverage_at(0.95, scores, np.zeros(5)) == 0.0


def test_calibration_error_is_the_gap_between_probability_and_accuracy_in_each_bin() -> None:
    probabilities = np.array([0.95, 0.95, 0.02, 0.02])
    right = np.array([1.0, 0.0, 0.0, 0.0])
    wanted = (2 * abs(0.5 - 0.95) + 2 * 0.02) / 4
    assert calibration_error(probabilities, right, np.full(4, 0.25)) == pytest.approx(wanted)
    shares = np.array([0.5, 0.0, 0.25, 0.25])
    assert calibration_error(probabilities, right, shares) == pytest.approx(0.5 * 0.05 + 0.5 * 0.02)


def test_held_out_products_do_not_depend_on_the_order_and_are_not_in_the_catalogue() -> None:
    ids = [f"item-{n}" for n in range(40)]
    items = pl.DataFrame({"item_id": ids})
    photos = pl.DataFrame({"item_id": ids * 2})
    known, unknown = hold_out(Tables(items, photos, Path()))
    shuffled = Tables(items.reverse(), photos, Path())
    assert len(unknown.items) == N_HELD_OUT
    assert set(unknown.items["item_id"]) == set(hold_out(shuffled)[1].items["item_id"])
    assert not set(known.photos["item_id"]) & set(unknown.photos["item_id"])
    assert len(known.photos) + len(unknown.photos) == len(photos)
