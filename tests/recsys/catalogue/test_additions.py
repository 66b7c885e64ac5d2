from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.answers import Item
from recsys.catalogue.additions import read_image, read_items, read_pictures
from recsys.errors import DataError, FileAccessError, InvalidArgumentError, SchemaError
from recsys.schema import ItemSchema

MUG = Item(
    "mug",
    title="Blue mug",
    category=("Kitchen", "Mugs"),
    price=9.5,
    attributes={"colour": "blue"},
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
)
WRONG: Any = {"attributes": None}, {"price": "dear"}
NO_MAPPING, NO_PRICE = (Item("a", **fields) for fields in WRONG)


def test_records_and_a_data_frame_of_the_same_items_are_one_table() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["mug", "bare"],
            "title": ["Blue mug", None],
            "category": [["Kitchen", "Mugs"], []],
            "price": ["9.5", None],
            "attributes": ['{"colour": "blue"}', None],
            "created_at": ["2025-01-01", None],
            "margin": [0.4, 0.2],
        }
    )
    table = read_items(frame)
    ItemSchema.validate(table)
    assert table.equals(read_items([MUG, Item("bare")]))
    assert table["available"].to_list() == [True, True]


def test_a_pandas_frame_is_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"item_id": ["mug"], "title": ["Blue mug"], "price": [9.5]})
    table = read_items(frame)
    assert table.select("item_id", "title", "price").rows() == [("mug", "Blue mug", 9.5)]


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        (pl.DataFrame({"title": ["mug"]}), SchemaError, "column 'item_id' is missing"),
        (pl.DataFrame({"item_id": ["a", "a"]}), DataError, "must not repeat an earlier row's"),
        (pl.DataFrame({"item_id": ["a"], "price": [-1.0]}), DataError, "must not be negative"),
        ([Item("a"), Item("a")], DataError, "must not repeat an earlier row's"),
        ([{"item_id": "a"}], InvalidArgumentError, "must be a DataFrame or Item records, got dict"),
        (
            pl.LazyFrame({"item_id": ["a"]}),
            InvalidArgumentError,
            r"LazyFrame; call .collect\(\) first",
        ),
        (5, InvalidArgumentError, "must be a DataFrame .*got int"),
        ([NO_MAPPING], InvalidArgumentError, "attributes of item 'a' must be a mapping .*None"),
        ([NO_PRICE], InvalidArgumentError, 'types that Item declares: .*"dear"'),
        ("items.csv", InvalidArgumentError, "must be a DataFrame .*got str"),
    ],
)
def test_items_that_cannot_be_used_are_refused(
    items: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_items(items)


def test_pictures_are_bytes_or_paths_by_item_or_in_order(tmp_path: Path) -> None:
    path = tmp_path / "mug.jpg"
    path.write_bytes(b"of the mug")
    items = read_items([Item("mug"), Item("lamp"), Item("bare")])
    wanted = [b"of the mug", b"of the lamp", None]
    assert read_pictures({" lamp": b"of the lamp", "mug": path}, items) == wanted
    assert read_pictures([str(path), b"of the lamp", None], items) == wanted
    column: Any = pl.Series([path.read_bytes(), b"of the lamp", None])
    assert read_pictures(column, items) == wanted
    assert read_pictures({}, items) == [None] * 3


def test_an_item_that_names_an_image_needs_an_entry_for_its_picture() -> None:
    items = read_items(pl.DataFrame({"item_id": ["mug", "bare"], "image": ["mug.jpg", None]}))
    with pytest.raises(InvalidArgumentError, match=r"got none for \['mug'\]; pass .* by item_id"):
        read_pictures({}, items)
    assert read_pictures({"mug": b"of the mug"}, items) == [b"of the mug", None]
    assert read_pictures({"mug": None}, items) == read_pictures([None, None], items) == [None, None]


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({"old": b"x"}, r"pictures must be of items in the same call, got others: \['old'\]"),
        ([b"x"], r"one entry per item \(2\), got 1 entries"),
        (b"xx", r"one entry per item \(2\), got bytes"),
        ("ab", r"one entry per item \(2\), got str"),
        (Path("ab"), r"one entry per item \(2\), got \w*Path"),
        (None, r"one entry per item \(2\), got NoneType"),
        ({b"x", b"y"}, r"one entry per item \(2\), got set"),
        ([3, None], "an image must be bytes or a path, got int"),
    ],
)
def test_pictures_that_do_not_fit_the_items_are_refused(pictures: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_pictures(pictures, read_items([Item("a"), Item("b")]))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"absent\.jpg"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(FileAccessError, match="must be a regular file"):
        read_image("/dev/zero")


def test_no_bytes_are_no_image() -> None:
    assert read_image(b"") is None
    assert read_image(None) is None
