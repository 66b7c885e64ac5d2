import polars as pl

from recsys.schema import EventSchema, ItemSchema, PhotoSchema


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
