"""Labels of items, and the facts of a bundle counted from its events."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.evaluation.facts import MAX_LABELS, item_facts, label_items, thirds
from recsys.evaluation.systems import bundle_split

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "category": [["food", "bread"], ["food"], [], ["toys"]],
        "price": [1.0, 2.0, 3.0, None],
        "attributes": [
            [{"key": "brand", "value": "x"}, {"key": "size", "value": "L"}],
            [{"key": "brand", "value": "y"}],
            [],
            [{"key": "size", "value": "M"}],
        ],
    }
)


def test_a_path_is_labelled_by_its_first_level_and_an_attribute_by_its_value() -> None:
    assert label_items(ITEMS, "category") == ["food", "food", "unknown", "toys"]
    assert label_items(ITEMS, "brand") == ["x", "y", "unknown", "unknown"]


def test_a_number_is_labelled_by_its_third() -> None:
    assert label_items(ITEMS, "price") == ["low", "middle", "high", "unknown"]


def test_rare_values_are_put_together() -> None:
    names = [f"brand {n}" for n in range(20) for _ in range(20 - n)]
    found = label_items(pl.DataFrame({"brand": names}), "brand")
    assert len(set(found)) == MAX_LABELS + 1
    assert found[0] == "brand 0"
    assert found[-1] == "other"


@pytest.mark.parametrize("column", ["colour", "attributes"])
def test_a_column_that_the_items_lack_is_an_error(column: str) -> None:
    with pytest.raises(ValueError, match=rf"exposure_by must name .*'brand'.*, got '{column}'"):
        label_items(ITEMS, column)


def test_a_flag_is_labelled_by_its_value() -> None:
    assert label_items(pl.DataFrame({"available": [True, False]}), "available") == ["true", "false"]


def test_thirds_have_equal_sizes_and_equal_numbers_share_one() -> None:
    assert thirds(np.arange(9.0)) == ["low"] * 3 + ["middle"] * 3 + ["high"] * 3
    assert set(thirds(np.ones(5))) == {"low"}
    assert thirds(np.array([np.nan])) == ["unknown"]


def test_the_facts_of_a_bundle_count_distinct_users_before_the_split(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    taken = bundle_split(bundle).train.of_kinds(bundle.target_kinds)
    facts = item_facts(bundle, taken, ["category"])
    pairs = set(zip(taken.user_rows.tolist(), taken.item_rows.tolist(), strict=True))
    expected = np.bincount([item for _, item in pairs], minlength=len(bundle.items))
    np.testing.assert_array_equal(facts.buyers, expected)
    assert facts.n_users == len({user for user, _ in pairs})
    assert set(facts.labels) <= {"category"}
