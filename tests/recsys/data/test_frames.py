from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recsys.data.frames import Frame, to_polars
from recsys.data.loading import load_events, load_items
from recsys.errors import InvalidArgumentError, MissingExtraError, SchemaError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS: dict[str, list[Any]] = {
    "item_id": ["a", "b"],
    "title": ["Mug", None],
    "price": [2.5, None],
    "category": [["Kitchen", "Mugs"], []],
    "available": [True, False],
    "created_at": [datetime(2026, 1, 1), None],
}
LIBRARIES: dict[str, Callable[..., Frame]] = {
    "polars": pl.DataFrame,
    "pandas": pd.DataFrame,
    "pyarrow": pa.table,
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_same_items(library: str) -> None:
    frame = LIBRARIES[library](COLUMNS)

    items, report = load_items(frame)

    assert items.equals(load_items(pl.DataFrame(COLUMNS)).frame)
    assert items.select("item_id", "title", "price").rows() == [
        ("a", "Mug", 2.5),
        ("b", None, None),
    ]
    assert items["created_at"].to_list() == [datetime(2026, 1, 1, tzinfo=UTC), None]
    assert report.n_valid == 2


def test_a_polars_frame_is_passed_on_without_a_copy() -> None:
    frame = pl.DataFrame(COLUMNS)

    assert to_polars(frame, table="items") is frame


def test_an_index_of_pandas_that_has_a_name_is_a_column() -> None:
    frame = pd.DataFrame(COLUMNS).set_index("item_id")

    assert load_items(frame).frame["item_id"].to_list() == ["a", "b"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_bad_rows_of_a_frame_are_quarantined_with_their_numbers(library: str) -> None:
    frame = LIBRARIES[library](
        {
            "user_id": ["u", "u", None],
            "item_id": ["a", "b", "a"],
            "kind": ["view"] * 3,
            "timestamp": ["2026-02-01", "2026-02-01", "soon"],
        }
    )

    events, report = load_events(frame, pl.Series(["a"]), now=NOW)

    assert len(events) == 1
    assert sorted(report.failures.select("row", "rule", "got").rows()) == [
        (2, "item_id|known", "b"),
        (3, "timestamp|unreadable", "soon"),
        (3, "user_id|nullability", None),
    ]


def test_a_schema_error_names_the_table_and_its_columns() -> None:
    with pytest.raises(SchemaError, match=r"table items: column 'item_id' is missing.*\['title'\]"):
        load_items(pd.DataFrame({"title": ["Mug"]}))


def test_a_column_of_pandas_with_mixed_types_is_a_schema_error() -> None:
    frame = pd.DataFrame({"item_id": ["a", 1]})

    with pytest.raises(SchemaError, match=r"items cannot be read as an Arrow table .*item_id"):
        to_polars(frame, table="items")


def test_two_columns_of_one_name_are_a_schema_error() -> None:
    frame = pd.DataFrame([["a", "b"]], columns=["item_id", "item_id"])

    with pytest.raises(SchemaError, match=r"items cannot be read .*Duplicate column names"):
        to_polars(frame, table="items")


@pytest.mark.parametrize("frame", [{"item_id": ["a"]}, pl.LazyFrame({"item_id": ["a"]}), None])
def test_anything_else_is_refused_by_its_type(frame: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"items must be a .*got {type(frame).__name__}"):
        to_polars(frame, table="items")


def test_pandas_without_pyarrow_says_what_to_install() -> None:
    class Bare:
        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
            raise ImportError("Missing optional dependency 'pyarrow'")

    with pytest.raises(MissingExtraError, match=r"items of .* pip install pyarrow"):
        to_polars(Bare(), table="items")
