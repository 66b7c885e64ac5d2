import json
import logging
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.cells import parse_pairs
from recsys.data.coercion import coerce, refused
from recsys.errors import SchemaError
from recsys.schema import EventSchema, ItemSchema, PhotoSchema

NOW = datetime(2026, 3, 1, tzinfo=UTC)
JSON_PLAIN = st.none() | st.booleans() | st.integers() | st.text()


def items(**columns: pl.Series | list[Any]) -> pl.DataFrame:
    """Return the coerced items with the given columns."""
    columns = {"item_id": [str(i) for i in range(len(next(iter(columns.values()))))], **columns}
    return coerce(pl.LazyFrame(columns), ItemSchema, table="items").collect()


def cells(name: str, values: pl.Series | list[Any]) -> tuple[list[Any], list[Any]]:
    """Return a coerced column of items and what of it was refused."""
    frame = items(**{name: values})
    return frame[name].to_list(), frame[refused(name)].to_list()


def pairs(**attributes: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in attributes.items()]


def test_missing_optional_columns_get_their_defaults() -> None:
    frame = items(item_id=["a"])

    (row,) = frame.select(ItemSchema.column_names()).rows(named=True)
    assert row == {
        "item_id": "a",
        "title": None,
        "description": None,
        "image": None,
        "category": [],
        "price": None,
        "attributes": [],
        "available": True,
        "created_at": None,
    }
    types = {name: column.dtype for name, column in ItemSchema.columns().items()}
    assert dict(frame.select(ItemSchema.column_names()).schema) == types


def test_the_result_passes_the_schema_without_casting() -> None:
    frame = coerce(
        pl.LazyFrame(
            {"user_id": [7], "item_id": [1], "kind": ["view"], "timestamp": [date(1971, 1, 1)]}
        ),
        EventSchema,
        table="events",
    ).collect()

    assert EventSchema.is_valid(frame)
    assert frame["quantity"].to_list() == [1.0]


def test_columns_outside_the_schema_are_dropped() -> None:
    assert "margin" not in items(margin=[0.2]).columns


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt64, pl.String, pl.Categorical, pl.Enum(["7"])])
def test_ids_may_be_integers_or_any_text(dtype: Any) -> None:
    ids = pl.Series(["7"]).cast(dtype)

    assert items(item_id=ids)["item_id"].to_list() == ["7"]


def test_blanks_around_ids_and_words_are_cut_off_and_kinds_are_in_lower_case() -> None:
    frame = coerce(
        pl.LazyFrame(
            {"user_id": ["u1  "], "item_id": ["\ufeff1"], "kind": [" Purchase"], "timestamp": [NOW]}
        ),
        EventSchema,
        table="events",
    ).collect()

    assert frame.row(0)[0:6:2] == ("u1", "1", "purchase")


def test_blank_text_is_null() -> None:
    assert cells("title", ["Mug", "", "  ", None]) == (["Mug", None, None, None], [None] * 4)


@pytest.mark.parametrize("dtype", [pl.Int32, pl.UInt8, pl.Float32, pl.Decimal(10, 2), pl.String])
def test_prices_may_be_any_numbers(dtype: Any) -> None:
    assert cells("price", pl.Series([2, None]).cast(dtype)) == ([2.0, None], [None, None])


def test_text_that_is_no_number_is_refused_and_kept() -> None:
    assert cells("price", [" 1.50 ", "", "1,50", "1,500", "N/A"]) == (
        [1.5, None, 1.5, None, None],
        [None, None, None, "1,500", "N/A"],
    )


def test_flags_may_be_words_or_ones_and_zeros() -> None:
    words = ["true", "False", "YES", "no", "1", "0", "", "Out of stock", "maybe"]

    assert cells("available", words) == (
        [True, False, True, False, True, False, True, False, True],
        [None] * 8 + ["maybe"],
    )
    assert cells("available", [1, 0, None, 2]) == ([True, False, True, True], [None] * 3 + ["2"])


def test_times_without_a_zone_are_utc_and_others_are_converted() -> None:
    wanted = ([datetime(2026, 3, 1, 12, tzinfo=UTC)], [None])
    naive = pl.Series([datetime(2026, 3, 1, 12)])
    tokyo = pl.Series([datetime(2026, 3, 1, 21)]).dt.replace_time_zone("Asia/Tokyo")

    for column in (naive, naive.cast(pl.Datetime("ns")), naive.cast(pl.Datetime("ms")), tokyo):
        assert cells("created_at", column) == wanted
    assert cells("created_at", ["2026-03-01T13:00+01:00"]) == wanted
    assert cells("created_at", [date(2026, 3, 1)])[0] == [datetime(2026, 3, 1, tzinfo=UTC)]
    assert cells("created_at", ["last year"]) == ([None], ["last year"])


@pytest.mark.parametrize("per_second", [1, 1_000, 1_000_000, 1_000_000_000])
def test_unix_times_may_be_in_any_unit(per_second: int) -> None:
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    number = int(moment.timestamp()) * per_second

    for column in ([number], [str(number)], [float(number)], [f"{number}.0"]):
        assert cells("created_at", column) == ([moment], [None])


@pytest.mark.parametrize("unit", ["ms", "us"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_moments_that_no_calendar_has_are_refused(unit: Any, zone: str | None) -> None:
    forever = pl.Series([2**63 - 1, -(2**63) + 1, 1_000_000]).cast(pl.Datetime(unit, zone))

    moments, texts = cells("created_at", forever)

    assert moments[:2] == [None, None]
    assert moments[2].year == 1970
    assert texts == [str(2**63 - 1), str(-(2**63) + 1), None]
    assert cells("created_at", pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date))[0] == [None]


def test_numbers_that_are_no_unix_time_are_refused() -> None:
    numbers = [0, 5, -1_700_000_000, 20_260_301, 2**62]

    assert cells("created_at", numbers) == ([None] * 5, [str(number) for number in numbers])
    assert cells("created_at", ["1e400", "nan", "5.5"])[0] == [None] * 3


def test_categories_may_be_json_lists() -> None:
    texts = ['["Kitchen", "Mugs > Tea"]', "[]", '["A", null, 3]', "[Sale] > Mugs", ' ["A"] ']
    wanted = [["Kitchen", "Mugs > Tea"], [], ["A", "3"], ["[Sale]", "Mugs"], ["A"]]

    assert cells("category", texts) == (wanted, [None] * 5)


def test_structures_that_are_no_category_are_refused() -> None:
    texts = ["['Kitchen', 'Mugs']", '{"id": 3}', '[["A"]]', '["\\ud800"]']

    assert cells("category", texts) == ([[]] * 4, texts)
    assert cells("category", ["[" * 99_999]) == ([["[" * 99_999]], [None])


def test_a_structure_in_a_column_of_words_is_refused() -> None:
    titles = ['{"en": "Mug"}', '["Mug"]', "{'en': 'Mug'}", "[NEW] Mug", "[2024]", '{ "b": [1] }']

    assert cells("title", titles) == (
        [None, None, None, "[NEW] Mug", "[2024]", None],
        [*titles[:3], None, None, titles[5]],
    )


def test_categories_may_be_lists_or_text_with_arrows() -> None:
    wanted = [["Fruit", "Apple"], [], ["Milk"], []]

    assert cells("category", ["Fruit > Apple", "", "> Milk >", None])[0] == wanted
    assert cells("category", [["Fruit", " Apple "], [], [None, "Milk", ""], None])[0] == wanted
    assert cells("category", [[], []])[0] == [[], []]


def test_attributes_may_be_json_structs_maps_or_pairs() -> None:
    wanted = [pairs(colour="red", size="3"), [], pairs(size="4"), []]
    as_json = ['{"colour": "red", "size": 3}', "{}", '{"colour": null, "size": 4, "a": ""}', None]
    structs = [{"colour": "red", "size": 3}, {}, {"size": 4}, None]
    as_pairs = [*wanted[:2], [{"key": "colour", "value": None}, *pairs(size="4")], None]
    maps = pl.Series(
        [{"colour": "red", "size": "3"}, {}, {"size": "4"}, None],
        dtype=pl.Map(pl.String, pl.String),
    )

    pairs_as_json = [json.dumps(one) if one is not None else None for one in as_pairs]

    for column in (as_json, structs, as_pairs, maps, pairs_as_json):
        assert cells("attributes", column)[0] == wanted


def test_attributes_that_are_not_flat_json_are_refused() -> None:
    texts = [
        "red",
        "[1]",
        '[{"key": [1], "value": 2}]',
        '[{"k": "a"}]',
        "3",
        '{"a": {"b": 1}}',
        '{"a": ["b"]}',
        '{"a": "\\ud800"}',
        "[" * 99_999,
    ]

    assert cells("attributes", texts) == ([[]] * len(texts), texts)


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON_PLAIN))
def test_flat_json_keeps_every_value(attributes: dict[str, Any]) -> None:
    found = parse_pairs(json.dumps(attributes))

    assert found is not None
    assert [pair["key"] for pair in found] == [k for k, v in attributes.items() if v is not None]
    for pair in found:
        value = attributes[pair["key"]]
        assert pair["value"] == (value if isinstance(value, str) else json.dumps(value))


@settings(deadline=None)
@given(st.text() | st.binary().map(repr) | st.recursive(JSON_PLAIN, st.lists).map(json.dumps))
def test_text_that_is_no_object_never_gives_pairs(text: str) -> None:
    try:
        is_object = isinstance(json.loads(text), dict)
    except ValueError:
        is_object = False

    assert is_object or not parse_pairs(text)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4))
def test_an_arrow_path_reads_back_as_written(parts: list[str]) -> None:
    clean = [part.strip() for part in parts if part.strip() and ">" not in part]

    (category,), _ = cells("category", pl.Series([" > ".join(clean)], dtype=pl.String))

    # Both sides are stripped of what polars and Python both call white space.
    assert [part.strip() for part in category] == [part.strip() for part in clean]


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("item_id", [1.0], "text or integers .*convert them to integers.*, got Float64"),
        ("title", [["a"]], "text or integers, got List"),
        ("price", [True], "numbers, got Boolean"),
        ("available", [0.5], "true or false, got Float64"),
        ("created_at", [True], "date-times, ISO 8601 text, or Unix times.*got Boolean"),
        ("category", [[1]], "lists of text.*got List"),
        ("attributes", [["a"]], "maps.*got List"),
        ("attributes", [{"a": ["b"]}], "maps.*got Struct"),
        ("attributes", [[{"key": "a", "val": "b"}]], "maps.*got List"),
    ],
)
def test_a_type_that_makes_no_sense_is_a_schema_error(
    column: str, values: list[Any], wanted: str
) -> None:
    with pytest.raises(SchemaError, match=f"items: column '{column}' must hold .*{wanted}"):
        items(**{column: values})


def test_every_problem_of_a_table_is_named_at_once_with_the_nearest_column() -> None:
    events = pl.LazyFrame({"userid": ["u"], "item_id": [1.5], "kind": ["view"]})

    with pytest.raises(SchemaError) as caught:
        coerce(events, EventSchema, table="events.csv")

    message = str(caught.value)
    assert "column 'user_id' is missing, 'userid' looks like it: rename it" in message
    assert "column 'item_id' must hold text or integers" in message
    assert "column 'timestamp' is missing;" in message
    assert "its columns are ['userid', 'item_id', 'kind']" in message


def test_an_optional_column_that_is_misspelt_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        items(Catgory=["a"])

    assert "items has no column 'category', 'Catgory' looks like it: rename it" in caplog.text


def test_photos_need_neither_item_nor_category_column() -> None:
    coerced = coerce(pl.LazyFrame({"image": ["a.jpg"]}), PhotoSchema, table="photos").collect()

    assert coerced.select(PhotoSchema.column_names()).row(0) == ("a.jpg", None, [], None)
