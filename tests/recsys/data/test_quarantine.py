from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest

from recsys.data.coercion import coerce
from recsys.data.quarantine import ROW, Loaded, Quarantine, TableReport, explain, validate
from recsys.errors import DataError
from recsys.schema import (
    EventSchema,
    ItemSchema,
    PhotoSchema,
    RelationSchema,
    is_first_of_its_id,
)

BAD_ITEMS: dict[str, list[str | None]] = {
    "item_id": ["a", "b", "a", None, "c", "d"],
    "price": ["1", "-2", "3", "4", "five", "nan"],
    "available": ["yes", None, None, None, "perhaps", None],
}


def check(columns: Mapping[str, Sequence[str | None]], **rules: pl.Expr) -> Loaded:
    frame = coerce(pl.LazyFrame(columns), ItemSchema, table="items")
    unique = {"item_id_is_unique": is_first_of_its_id(pl.col("item_id"))}
    return validate(frame, ItemSchema, table="items", rules=unique | rules)


def test_each_bad_cell_is_reported_with_its_row_and_whether_the_row_stays() -> None:
    valid, report = check(BAD_ITEMS)

    assert valid["item_id"].to_list() == ["a", "b", "c", "d"]
    assert valid["price"].to_list() == [1.0, None, None, None]
    assert valid["available"].to_list() == [True] * 4
    assert valid.columns == [ROW, *ItemSchema.column_names()]
    assert (report.table, report.n_rows, report.n_valid) == ("items", 6, 4)
    assert report.failures.select("row", "rule", "got", "kept").rows() == [
        (2, "price|min", "-2.0", True),
        (3, "item_id_is_unique", "a", False),
        (4, "item_id|nullability", None, False),
        (5, "price|unreadable", "five", True),
        (5, "available|unreadable", "perhaps", True),
        (6, "price|max", "NaN", True),
    ]
    assert report.failures.columns == [
        *("rule", "row", "got", "reason", "kept"),
        *ItemSchema.column_names(),
    ]
    assert report.used_rows().to_list() == valid[ROW].to_list() == [1, 2, 5, 6]


def test_a_bad_cell_of_a_row_that_is_left_out_is_reported_as_well() -> None:
    report = check({"item_id": [None, "a"], "price": ["N/A", "N/A"]}).report

    assert report.failures.select("row", "rule", "kept").rows() == [
        (1, "item_id|nullability", False),
        (1, "price|unreadable", False),
        (2, "price|unreadable", True),
    ]
    assert report.kept() == {"price|unreadable": 1}
    assert "price must be a number" in report.lines()[0]
    assert report.lines()[0].endswith("; row 1 has 'N/A'; 1 of them stay")


def test_a_photo_of_an_unknown_split_is_left_out() -> None:
    frame = pl.LazyFrame({"image": ["a", "b"], "split": [" Test ", "holdout"]})

    photos, report = validate(
        coerce(frame, PhotoSchema, table="photos"), PhotoSchema, table="photos", rules={}
    )

    assert photos["split"].to_list() == ["test"]
    assert report.counts() == {"split|check__known": 1}


def test_a_table_without_bad_rows_has_an_empty_report_of_the_same_columns() -> None:
    report = check({"item_id": ["a"]}).report

    assert report.failures.is_empty()
    assert report.failures.schema == check(BAD_ITEMS).report.failures.schema
    assert report.counts() == {}


def test_valid_rows_keep_their_order_and_numbers() -> None:
    ids = [None if i % 3 == 0 else str(i) for i in range(100_000)]

    valid, report = check({"item_id": ids})

    numbers = [i + 1 for i in range(100_000) if i % 3]
    assert valid[ROW].to_list() == numbers
    assert valid["item_id"].to_list() == [str(number - 1) for number in numbers]
    assert report.counts() == {"item_id|nullability": 33_334}


def test_rules_beyond_the_schema_count_and_null_passes() -> None:
    report = check(
        {"item_id": ["a", "b", "c"], "title": ["Mug", "MUG", None]},
        **{"title|known": pl.col("title") == "Mug"},
    ).report

    assert report.failures.select("row", "rule", "got").rows() == [(2, "title|known", "MUG")]


def test_what_cannot_be_read_is_not_called_missing_as_well() -> None:
    columns = {"user_id": ["u", "u"], "item_id": ["a", "a"], "kind": ["view", "view"]}
    frame = pl.LazyFrame({**columns, "timestamp": ["today", None]})

    report = validate(
        coerce(frame, EventSchema, table="events"), EventSchema, table="events", rules={}
    ).report

    assert report.counts() == {"timestamp|nullability": 1, "timestamp|unreadable": 1}


def test_an_empty_table_is_a_data_error() -> None:
    with pytest.raises(DataError, match="table items must hold rows, got none"):
        check({"item_id": []})


@pytest.mark.parametrize("schema", [ItemSchema, EventSchema, PhotoSchema, RelationSchema])
def test_every_rule_of_the_schemas_is_explained(schema: type[ItemSchema]) -> None:
    rules = [
        f"{name}|{rule}"
        for name, column in schema.columns().items()
        for rule in column.validation_rules(pl.col(name))
    ]

    assert rules
    assert all("must" in explain(rule) for rule in rules)
    assert "must" in explain("item_id_is_unique")


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"rule must be one of .*, got 'price\|odd'"):
        explain("price|odd")


def test_counts_are_also_sentences_most_first() -> None:
    report = check({"item_id": ["a", "a", "a", "b"], "price": ["1", "1", "1", "-1"]}).report

    assert report.lines() == [
        "items: 2 of 4 rows: item_id must not repeat an earlier row's; row 2 has 'a'",
        "items: 1 of 4 rows: price must not be negative; row 4 has '-1.0'; the row stays",
    ]


def test_an_example_is_short_and_harmless_on_a_terminal() -> None:
    (line,) = check({"item_id": ["a"], "price": ["\x1b[31m" + "x" * 99]}).report.lines()

    assert line.endswith("; row 1 has '\\x1b[31m" + "x" * 55 + "…'; the row stays")


def test_quarantine_is_written_as_one_file_per_table_that_has_failures(tmp_path: Path) -> None:
    bad, good = check(BAD_ITEMS).report, check({"item_id": ["a"]}).report
    photos = TableReport("photos", good.n_rows, good.n_valid, good.failures)
    (tmp_path / "photos.parquet").write_text("of an earlier run")

    paths = Quarantine((bad, photos)).write(tmp_path)

    assert paths == list(tmp_path.iterdir()) == [tmp_path / "items.parquet"]
    assert pl.read_parquet(paths[0]).equals(bad.failures)


def test_strictness_lists_all_counts_of_all_tables() -> None:
    report = check(BAD_ITEMS).report
    clean = Quarantine((check({"item_id": ["a"]}).report,))

    clean.require_empty()
    with pytest.raises(DataError, match="every row must be valid") as caught:
        Quarantine((*clean.reports, report)).require_empty()

    assert "items: 1 of 6 rows: price must not be negative" in str(caught.value)
    assert str(caught.value).count("items: 1 of 6 rows") == 6


def test_counts_are_by_table() -> None:
    quarantine = Quarantine((check({"item_id": ["a", "a"]}).report,))

    assert quarantine.counts() == {"items": {"item_id_is_unique": 1}}
