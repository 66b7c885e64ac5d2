"""The accuracy of groups, with intervals that are wide for small groups."""

import numpy as np
import pytest

from vision.report.slices import FREQUENCY, accuracy_by_frequency, accuracy_by_group


def test_every_group_has_its_own_accuracy() -> None:
    right = np.array([True, False, True, True, False])
    got = accuracy_by_group(right, ["lund", "lund", "å", "lund", "å"], "store")
    assert [(one.grouping, one.group, one.n_pictures) for one in got] == [
        ("store", "lund", 3),
        ("store", "å", 2),
    ]
    assert [one.accuracy.mean for one in got] == pytest.approx([2 / 3, 1 / 2])


def test_the_interval_is_wilsons_and_wide_for_a_small_group() -> None:
    (group,) = accuracy_by_group(np.array([True] * 3), ["a"] * 3, "store")
    z = 1.959964
    assert group.accuracy.low == pytest.approx(3 / (3 + z**2), abs=1e-6)
    assert group.accuracy.high == 1.0


def test_classes_are_grouped_by_their_number_of_pictures_the_rarest_first() -> None:
    counts = [1, 4, 5, 19, 20, 99, 100, 101]
    labels = np.repeat(np.arange(8), counts)
    right = labels % 2 == 0
    got = accuracy_by_frequency(right, labels)
    assert [(one.group, one.n_pictures) for one in got] == [
        ("1 to 4", 5),
        ("5 to 19", 24),
        ("20 to 99", 119),
        ("100 or more", 201),
    ]
    assert {one.grouping for one in got} == {FREQUENCY}
    assert [one.accuracy.mean for one in got] == pytest.approx([1 / 5, 5 / 24, 20 / 119, 100 / 201])
