import math

import pytest
import torch

from recsys.identification.evidence import Evidence
from recsys.identification.nearest import NearestCalibration

CALIBRATION = NearestCalibration(0.1, (10.0, 5.0), -6.0, 0.7)


def test_probabilities_are_those_of_the_closer_of_item_and_prototype() -> None:
    values = torch.tensor([[[0.0, 0.5, 0.8, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    present = torch.tensor([[[False, True, True, False], [False, True, False, False], [False] * 4]])
    found = CALIBRATION.probabilities(Evidence(values, present))[0]
    known = 1 / (1 + math.exp(-(10 * 0.8 + 5 * 0.2 - 6)))
    first = math.exp(8) / (math.exp(8) + math.exp(6))
    assert found.tolist() == pytest.approx([known * first, known * (1 - first), 0, 1 - known])


def test_a_single_product_has_no_lead() -> None:
    values = torch.tensor([[[0.0, 0.6, 0.0, 0.0]]])
    found = CALIBRATION.probabilities(Evidence(values, values > 0))[0]
    assert found.tolist() == pytest.approx([0.5, 0.5])


def test_it_names_no_product_for_what_that_gives_was_not_measured() -> None:
    assert CALIBRATION.known.threshold == 0.7
    assert not CALIBRATION.answers.passes(1.0)
