from datetime import UTC, datetime

import polars as pl
import pytest

from recsys.schema import (
    MAX_AMOUNT,
    MAX_ID_CHARACTERS,
    MAX_PARTS,
    MAX_TEXT_CHARACTERS,
    EventSchema,
    ItemSchema,
    PhotoSchema,
    RelationSchema,
)


def test_columns_are_the_canonical_ones() -> None:
    assert ItemSchema.column_names() == [
        "item_id",
        "title",
        "description",
        "image",
        "category",
        "price",
        "attributes",
        "available",
        "created_at",
    ]
    assert EventSchema.column_names() == [
        "user_id",
        "item_id",
        "kind",
        "timestamp",
        "quantity",
        "value",
    ]
    assert PhotoSchema.column_names() == ["image", "item_id", "category", "split"]
    assert RelationSchema.column_names() == ["left", "right", "kind", "weight"]


def test_times_are_utc_microseconds() -> None:
    for column in (ItemSchema.created_at, EventSchema.timestamp):
        assert column.dtype == pl.Datetime("us", "UTC")


def test_the_first_of_repeated_items_is_the_valid_one() -> None:
    items = (
        ItemSchema.create_empty()
        .clear(3)
        .with_columns(
            item_id=pl.Series(["a", "b", "a"]),
            price=pl.Series([1.0, 2.0, 3.0]),
            category=pl.lit([], dtype=pl.List(pl.String)),
            attributes=pl.lit([], dtype=ItemSchema.attributes.dtype),
            available=pl.lit(True),
        )
    )

    valid, failure = ItemSchema.filter(items)

    assert valid["price"].to_list() == [1.0, 2.0]
    assert failure.counts() == {"item_id_is_unique": 1}


def test_items_without_an_id_do_not_repeat_each_other() -> None:
    items = (
        ItemSchema.create_empty()
        .clear(2)
        .with_columns(
            category=pl.lit([], dtype=pl.List(pl.String)),
            attributes=pl.lit([], dtype=ItemSchema.attributes.dtype),
            available=pl.lit(True),
        )
    )

    _, failure = ItemSchema.filter(items)

    assert failure.counts() == {"item_id|nullability": 2}


def test_a_photo_may_be_unlabelled_but_needs_a_known_split() -> None:
    photos = pl.DataFrame(
        {
            "image": ["a", "b", "c", "d"],
            "item_id": ["1", None, None, "1"],
            "category": [[], ["Fruit"], [], []],
            "split": ["train", None, None, "holdout"],
        },
        schema={name: column.dtype for name, column in PhotoSchema.columns().items()},
    )

    valid, failure = PhotoSchema.filter(photos)

    assert valid["image"].to_list() == ["a", "b", "c"]
    assert failure.counts() == {"split|check__known": 1}


@pytest.mark.parametrize(
    ("column", "good", "bad", "rule"),
    [
        ("item_id", "x" * MAX_ID_CHARACTERS, "x" * (MAX_ID_CHARACTERS + 1), "check__id_length"),
        ("item_id", "é" * MAX_ID_CHARACTERS, "é" * (MAX_ID_CHARACTERS + 1), "check__id_length"),
        ("title", "é" * MAX_TEXT_CHARACTERS, "x" * (MAX_TEXT_CHARACTERS + 1), "check__text_length"),
        ("price", MAX_AMOUNT, 1.7976931348623157e308, "max"),
        ("price", 0.0, float("nan"), "max"),
        ("price", None, float("inf"), "max"),
        ("category", ["x"] * MAX_PARTS, ["x"] * (MAX_PARTS + 1), "max_length"),
        ("created_at", datetime(2099, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC), "max_"),
    ],
)
def test_every_value_has_a_bound(column: str, good: object, bad: object, rule: str) -> None:
    row = {"item_id": "a", "category": [], "attributes": [], "available": True}
    rows = [row | {column: good}, row | {"item_id": "b"} | {column: bad}]
    items = pl.DataFrame(rows, schema=dict(ItemSchema.create_empty().schema))

    valid, failure = ItemSchema.filter(items)

    assert len(valid) == 1
    (broken,) = failure.counts()
    assert broken.startswith(f"{column}|{rule}")


def test_events_of_1970_are_times_read_in_the_wrong_unit() -> None:
    event = {"user_id": "u", "item_id": "a", "kind": "view", "quantity": 1.0, "value": None}
    times = [datetime(1970, 1, 20, tzinfo=UTC), datetime(1971, 1, 1, tzinfo=UTC)]
    events = pl.DataFrame(
        [event | {"timestamp": time} for time in times],
        schema=dict(EventSchema.create_empty().schema),
    )

    assert EventSchema.filter(events)[1].counts() == {"timestamp|min": 1}
