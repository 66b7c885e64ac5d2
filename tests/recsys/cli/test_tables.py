import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.config import load_config
from recsys.data.sources.registry import import_source
from recsys.data.synthetic import Shop
from recsys.pipeline import check_tables

Ask = Callable[..., Any]
Say = Callable[..., str]
TOMORROW = datetime.now(UTC) + timedelta(days=1)
LINES = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
2,85123A,WHITE HEART,6,2010-12-02 08:26:00,2.50,17850.0,United Kingdom
1,71053,WHITE LANTERN,1,2010-12-01 08:26:00,3.39,17850.0,United Kingdom
3,85123A,WHITE HEART,2,2010-12-03 08:26:00,2.00,13047.0,France
"""


@pytest.fixture
def config(tmp_path: Path, tiny_shop: Shop) -> Path:
    """Configuration of a shop of three items, two events and a photo, with valid rows only."""
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    picture = next(tiny_shop.images.rglob("*.jpg"))
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(picture, shop / "images" / name)
    items = {"item_id": ["a", "b", "c"], "image": ["a.jpg", "b.jpg", None]}
    pl.DataFrame(items | {"title": ["mug", "lamp", "vase"]}).write_parquet(shop / "items.parquet")
    event = {"user_id": "u", "item_id": "a", "kind": "view", "timestamp": datetime(2025, 1, 1)}
    pl.DataFrame([event] * 2).write_parquet(shop / "events.parquet")
    pl.DataFrame([{"image": "a.jpg", "item_id": "a"}]).write_parquet(shop / "photos.parquet")
    path = shop / "shop.toml"
    path.write_text(
        '[data]\nitems = "items.parquet"\nevents = "events.parquet"\n'
        'photos = "photos.parquet"\nimages_root = "images"\n'
    )
    return path


def edit(config: Path, table: str, column: str, *values: object) -> None:
    """Replace the first values of a column of a table."""
    path = config.with_name(f"{table}.parquet")
    frame = pl.read_parquet(path)
    column_values = [*values, *frame[column].to_list()[len(values) :]]
    frame.with_columns(pl.Series(column, column_values)).write_parquet(path)


def test_valid_tables_are_counted_and_leave_no_file(config: Path, tmp_path: Path, ask: Ask) -> None:
    assert ask("check", config, "--out", tmp_path / "bad", "--strict") == {
        "valid": {"items": 3, "events": 2, "photos": 1},
        "failed": {"items": {}, "events": {}, "photos": {}},
        "kept": {"items": {}, "events": {}, "photos": {}},
        "files": [],
        "left_out": [
            "vision: two different pictures are needed to learn from, got 3 alike",
            "identification: it needs the vision tower",
            "ranking: events at 3 different times are needed, got 1",
        ],
    }


def test_relations_are_counted_and_bad_ones_named(config: Path, tmp_path: Path, ask: Ask) -> None:
    path = config.with_name("relations.csv")
    path.write_text("left,right,kind,weight\na,b,goes_with,\nb,a,goes_with,2\na,z,replaces,1\n")
    config.write_text(config.read_text() + 'relations = "relations.csv"\n')

    found = ask("check", config, "--out", tmp_path / "bad")

    assert found["valid"]["relations"] == 1
    assert found["failed"]["relations"] == {"relation_is_unique": 1, "right|known": 1}
    assert found["files"] == [str(tmp_path / "bad" / "relations.parquet")]
    bad = pl.read_parquet(found["files"][0])
    assert bad.select("row", "got", "left", "right").rows() == [
        (2, "b goes_with a", "b", "a"),
        (3, "z", "a", "z"),
    ]


def test_what_training_would_refuse_is_refused_after_the_rows_are_counted(
    config: Path, tmp_path: Path, say: Say, refusal: Say
) -> None:
    assert "left out ranking: events at 3 different times are needed, got 1" in say(
        "check", config, "--out", tmp_path / "bad"
    )
    events = [
        {"user_id": "u", "item_id": "a", "kind": "view", "timestamp": datetime(2025, 1, day)}
        for day in (1, 2, 3)
    ]
    pl.DataFrame(events).write_parquet(config.with_name("events.parquet"))
    assert "the ranker must have events to learn from" in refusal("check", config)
    config.write_text(config.read_text() + '[split]\nhorizon = "30d"\n')
    assert "events must begin before the first of 3 cuts" in refusal("check", config)


def test_check_prints_and_writes_the_rows_that_the_library_finds(
    config: Path, tmp_path: Path, ask: Ask, say: Say
) -> None:
    edit(config, "items", "item_id", "b")
    edit(config, "events", "item_id", "nothing")
    quarantine = check_tables(load_config(config)).quarantine
    answer = ask("check", config, "--out", tmp_path / "bad")
    assert answer["failed"] == quarantine.counts()
    assert answer["valid"] == {report.table: report.n_valid for report in quarantine.reports}
    assert [Path(file).name for file in answer["files"]] == [
        f"{report.table}.parquet" for report in quarantine.reports if len(report.failures)
    ]
    for file, report in zip(answer["files"], quarantine.reports, strict=False):
        assert pl.read_parquet(file).equals(report.failures)
    printed = say("check", config, "--out", tmp_path / "bad")
    assert all(line in printed for line in quarantine.lines())
    assert "items: 2 of 3 rows are used" in printed


def test_an_item_with_an_unreadable_price_stays_without_it(
    config: Path, tmp_path: Path, ask: Ask, say: Say
) -> None:
    table = config.with_name("items.parquet")
    pl.read_parquet(table).with_columns(price=pl.lit("N/A")).write_parquet(table)
    answer = ask("check", config, "--out", tmp_path / "bad")
    assert answer["valid"]["items"] == 3
    assert answer["failed"]["items"] == answer["kept"]["items"] == {"price|unreadable": 3}
    printed = say("check", config, "--out", tmp_path / "bad")
    assert "price must be a number, and not two at once" in printed
    assert "row 1 has 'N/A'; they stay" in printed


BAD_ROWS = [
    ("items", "item_id", "b", "item_id must not repeat an earlier row's"),
    ("items", "item_id", "", "item_id must not be empty"),
    ("items", "image", "../images/a.jpg", "image must stay inside the images root"),
    ("items", "image", "/etc/passwd", "image must stay inside the images root"),
    ("items", "image", "gone.jpg", "image must be an existing file"),
    ("items", "image", "torn.jpg", "image must be a picture that can be decoded"),
    ("events", "item_id", "nothing", "item_id must be a valid row of the items table"),
    ("events", "timestamp", TOMORROW.replace(tzinfo=None), "timestamp must not lie in the future"),
    ("photos", "item_id", "nothing", "item_id must be a valid row of the items table"),
    ("photos", "image", "torn.jpg", "image must be a picture that can be decoded"),
]


@pytest.mark.parametrize(("table", "column", "value", "wanted"), BAD_ROWS)
def test_an_invalid_row_is_counted_and_stops_a_strict_check(
    config: Path,
    tmp_path: Path,
    say: Say,
    refusal: Say,
    table: str,
    column: str,
    value: object,
    wanted: str,
) -> None:
    picture = config.with_name("images") / "a.jpg"
    (picture.with_name("torn.jpg")).write_bytes(picture.read_bytes()[:200])
    edit(config, table, column, value)
    out = tmp_path / "bad"
    assert wanted in say("check", config, "--out", out)
    bad = pl.read_parquet(out / f"{table}.parquet")
    assert len(bad) == 1
    assert bad["got"][0] == (value or None) or column == "timestamp"
    message = refusal("check", config, "--out", out, "--strict")
    assert message.startswith("every row must be valid, got")
    assert wanted in message
    assert wanted in refusal("train", config, "--out", tmp_path / "bundles", "--strict")


def test_a_missing_column_is_refused_with_the_similar_one_that_is_there(
    config: Path, refusal: Say
) -> None:
    table = config.with_name("items.parquet")
    pl.read_parquet(table).rename({"item_id": "item-id"}).write_parquet(table)
    message = refusal("check", config)
    assert "column 'item_id' is missing, 'item-id' looks like it: rename it" in message


def test_a_column_of_another_type_is_refused_with_the_type_it_must_have(
    config: Path, refusal: Say
) -> None:
    edit(config, "items", "item_id", "1", "2", "3")
    table = config.with_name("items.parquet")
    pl.read_parquet(table).cast({"item_id": pl.Float64}).write_parquet(table)
    message = refusal("check", config)
    assert "column 'item_id' must hold" in message
    assert "got Float64" in message


def test_an_empty_table_is_refused(config: Path, refusal: Say) -> None:
    table = config.with_name("events.parquet")
    pl.read_parquet(table).clear().write_parquet(table)
    assert refusal("check", config) == "table events must hold rows, got none"


def test_a_missing_or_truncated_table_is_refused_by_name(config: Path, refusal: Say) -> None:
    table = config.with_name("events.parquet")
    table.write_bytes(table.read_bytes()[:50])
    assert f"table {table} cannot be read" in refusal("check", config)
    table.unlink()
    assert f"nothing matches {table}" in refusal("check", config)


@pytest.mark.parametrize("command", [["check"], ["train", "--out", "bundles"]])
def test_a_typo_in_the_configuration_is_refused_with_the_nearest_key(
    config: Path, refusal: Say, command: list[str]
) -> None:
    config.write_text(config.read_text() + "[ranker]\nepoch = 3\n")
    message = refusal(command[0], config, *command[1:])
    assert "ranker.epoch: unknown key; did you mean 'epochs'?" in message


def test_import_writes_the_tables_that_the_library_writes(tmp_path: Path, ask: Ask) -> None:
    source = tmp_path / "online-retail.csv"
    source.write_text(LINES)
    imported = import_source("online-retail", source, tmp_path / "one")
    answer = ask("import", "online-retail", source, tmp_path / "two")
    assert answer["rows"] == {"items": imported.n_items, "events": imported.n_events}
    assert answer["rows"] == {"items": 2, "events": 3}
    assert answer["out"] == str(tmp_path / "two")
    for table in (tmp_path / "one").glob("*.parquet"):
        assert pl.read_parquet(tmp_path / "two" / table.name).equals(pl.read_parquet(table))


def test_import_prints_the_rows_of_every_table(tmp_path: Path, say: Say) -> None:
    (tmp_path / "online-retail.csv").write_text(LINES)
    printed = say("import", "online-retail", tmp_path, tmp_path / "out")
    assert "online-retail: 2 items, 3 events in" in printed


def test_an_unknown_source_and_a_missing_file_are_refused(tmp_path: Path, refusal: Say) -> None:
    message = refusal("import", "nothing", tmp_path, tmp_path / "out")
    assert message.startswith("source must be one of amazon-beauty, folder, grocery-store")
    assert "got 'nothing'" in message
    message = refusal("import", "online-retail", tmp_path / "nothing.csv", tmp_path / "out")
    assert message.startswith("src must be the table or a folder")
    assert not (tmp_path / "out").exists()
