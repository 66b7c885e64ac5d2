"""Labelled pictures of the tables, for a tower that got more classes after its training."""

from pathlib import Path

import numpy as np

from recsys.cli.vision.inputs import with_added_classes
from vision.dataset import Samples

SAMPLES = Samples(
    [Path("a.png"), Path("b.png")],
    {"category_1": np.array([0, 1]), "attribute_use": np.array([-1, 1])},
    {"category_1": ["mug", "bowl"], "attribute_use": ["new", "old"]},
)


def test_classes_that_were_added_after_training_are_known_and_without_pictures() -> None:
    grown = {"category_1": ("mug", "bowl", "vase"), "attribute_use": ("new", "old")}
    found = with_added_classes(SAMPLES, grown)
    assert found.classes == grown
    assert found.targets is SAMPLES.targets
    same = {"category_1": ("mug", "bowl"), "attribute_use": ("new", "old")}
    assert with_added_classes(SAMPLES, same).classes == same


def test_samples_of_other_classes_are_left_to_the_check_of_the_report() -> None:
    for other in (
        {"category_1": ("bowl", "mug"), "attribute_use": ("new", "old")},
        {"category_1": ("mug", "bowl")},
        {"category_1": ("mug", "bowl"), "attribute_use": ("new", "old", "repaired")},
    ):
        assert with_added_classes(SAMPLES, other) is SAMPLES
