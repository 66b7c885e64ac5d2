import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.identification.calibration import Calibration, OperatingPoint
from recsys.identification.evidence import Evidence


@given(
    seed=st.integers(0, 10_000),
    weights=st.lists(st.floats(0, 20), min_size=5, max_size=5),
    pivots=st.lists(st.floats(-2, 2), min_size=5, max_size=5),
    unknown=st.floats(-5, 5),
)
def test_probabilities_are_the_softmax_of_weighted_sources_above_their_pivots(
    seed: int, weights: list[float], pivots: list[float], unknown: float
) -> None:
    random = np.random.default_rng(seed)
    present = torch.from_numpy(random.random((2, 3, 5)) < 0.5)
    values = torch.from_numpy(random.uniform(-1, 1, (2, 3, 5))).masked_fill(~present, 0.0)
    point = OperatingPoint(0.5)
    calibration = Calibration(tuple(weights), tuple(pivots), unknown, point, point)

    found = calibration.probabilities(Evidence(values, present))

    for n in range(2):
        exponentials = [
            math.exp(
                sum(
                    weights[s] * (float(values[n, row, s]) - pivots[s])
                    for s in range(5)
                    if present[n, row, s]
                )
            )
            if present[n, row].any()
            else 0.0
            for row in range(3)
        ]
        exponentials.append(math.exp(unknown))
        wanted = [one / sum(exponentials) for one in exponentials]
        assert found[n].tolist() == pytest.approx(wanted, abs=1e-9)


def test_a_probability_passes_from_the_threshold_on() -> None:
    assert OperatingPoint(0.5).passes(0.5)
    assert not OperatingPoint(0.5).passes(0.49)


def test_without_a_threshold_no_probability_passes() -> None:
    assert not OperatingPoint(None).passes(1.0)


def test_a_calibration_says_what_it_promises_or_that_it_can_promise_nothing() -> None:
    point = OperatingPoint(0.6, precision=0.96, coverage=0.81)
    given = {"wanted_precision": 0.95, "n_photos": 1_200}
    able = Calibration((1.0,), (0.0,), 0.0, known=point, named=point, **given)
    said = able.sentence()
    assert "named on 81 % of photos, 96 % of them rightly" in said
    assert "1,200 photos of val" in said
    nothing = OperatingPoint(None, precision=0.874, coverage=0.0)
    unable = Calibration((1.0,), (0.0,), 0.0, known=point, named=nothing, **given)
    said = unable.sentence()
    assert "no photo gets a product's name" in said
    assert "precision 0.95 on 1,200 photos of val: the best reaches 0.87" in said
