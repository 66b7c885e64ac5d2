import numpy as np
import polars as pl

from recsys.schema import ItemSchema, PhotoSchema
from recsys.training.labels import (
    item_labels,
    photo_categories,
    photo_labels,
    photo_rows,
    title_groups,
    with_identity,
)


def items(**columns: list[object]) -> pl.DataFrame:
    n_rows = len(next(iter(columns.values())))
    rows = [
        {
            "item_id": f"i{n}",
            "category": [],
            "attributes": [],
            "available": True,
            **{name: values[n] for name, values in columns.items()},
        }
        for n in range(n_rows)
    ]
    return pl.DataFrame(rows, schema=ItemSchema.create_empty().schema)


def photos(*rows: dict[str, object]) -> pl.DataFrame:
    filled = [{"image": "p.jpg", "category": [], **row} for row in rows]
    return pl.DataFrame(filled, schema=PhotoSchema.create_empty().schema)


PATHS: list[object] = [["Fruit", "Apple"], ["Fruit", "Pear"], ["Wear", "Apple"], ["Wear"], []]


def test_levels_are_prefixes_so_equal_names_in_two_branches_differ() -> None:
    labels = item_labels(items(category=PATHS))
    assert labels.classes["category_1"] == ["Fruit", "Wear"]
    assert labels.classes["category_2"] == ["Fruit > Apple", "Fruit > Pear", "Wear > Apple"]
    assert labels.indices["category_1"].tolist() == [0, 0, 1, 1, -1]
    assert labels.indices["category_2"].tolist() == [0, 1, 2, -1, -1]


def test_a_level_with_one_class_teaches_nothing_and_is_left_out() -> None:
    labels = item_labels(items(category=[["Fruit", "Apple"], ["Fruit", "Pear"]]))
    assert list(labels.classes) == ["category_2"]


def test_attributes_that_name_classes_become_targets_and_identifiers_do_not() -> None:
    pairs: list[object] = [
        [{"key": "colour", "value": ("red", "blue")[n % 2]}, {"key": "sku", "value": f"s{n}"}]
        for n in range(8)
    ]
    labels = item_labels(items(attributes=pairs))
    assert list(labels.classes) == ["attribute_colour"]
    assert labels.indices["attribute_colour"].tolist() == [1, 0] * 4


def test_identity_is_a_target_unless_a_level_already_has_a_class_for_each_item() -> None:
    distinct = item_labels(items(category=[["Fruit", "Apple"], ["Fruit", "Pear"]]))
    assert "item" not in with_identity(distinct, ["i0", "i1"]).classes
    labels = with_identity(item_labels(items(category=PATHS)), [f"i{n}" for n in range(5)])
    assert labels.indices["item"].tolist() == [0, 1, 2, 3, 4]


def test_a_photo_has_the_labels_of_its_item_or_of_its_own_category() -> None:
    table = items(category=PATHS)
    shots = photos(
        {"item_id": "i1"}, {"category": ["Wear", "Apple"]}, {"category": ["Cars"], "item_id": None}
    )
    labels = photo_labels(shots, table, item_labels(table))
    assert labels.indices["category_1"].tolist() == [0, 1, -1]
    assert labels.indices["category_2"].tolist() == [1, 2, -1]
    assert photo_rows(shots, table).tolist() == [1, -1, -1]


def test_categories_of_photos_are_classes_unless_their_item_has_one() -> None:
    table = items(category=[["Fruit"], ["Wear"], []])
    shots = photos(
        {"item_id": "i0", "category": ["Cars"]},  # the path of the item counts
        {"item_id": "i2", "category": ["Fruit", "Plum"]},
        {"category": ["Wear", "Cap"]},
    )
    labels = item_labels(table, shots)
    assert labels.classes == {
        "category_1": ["Fruit", "Wear"],
        "category_2": ["Fruit > Plum", "Wear > Cap"],
    }
    assert labels.indices["category_1"].tolist() == [0, 1, -1]
    found = photo_labels(shots, table, labels)
    assert found.indices["category_1"].tolist() == [0, 0, 1]
    assert found.indices["category_2"].tolist() == [-1, 0, 1]


def test_photos_have_labels_without_any_items() -> None:
    nothing = ItemSchema.create_empty()
    shots = photos({"category": ["Fruit"]}, {"category": ["Wear"]}, {"category": []})
    labels = item_labels(nothing, shots)
    assert labels.indices["category_1"].tolist() == []
    assert photo_labels(shots, nothing, labels).indices["category_1"].tolist() == [0, 1, -1]
    known = {"category_1": ["Other", "Wear"], "item": ["i0"]}
    assert {
        name: one.tolist() for name, one in photo_categories(shots, nothing, known).items()
    } == {"category_1": [-1, 1, -1]}


def test_items_of_the_same_title_share_a_group_and_untitled_ones_do_not() -> None:
    groups = title_groups(items(title=["Red Lamp", " red lamp", None, None, "Chair"]))
    assert groups[0] == groups[1]
    assert len(np.unique(groups)) == 4
