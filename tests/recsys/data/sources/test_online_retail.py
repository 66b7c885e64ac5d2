import gzip
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.dataset import load_dataset
from recsys.data.sources.online_retail import import_online_retail
from recsys.data.tables import Tables
from recsys.errors import DataError, SchemaError

ROOT = Path(__file__).parents[4]
REAL = ROOT / os.environ.get("RECSYS_DATA", "../shared/data") / "online-retail.csv.gz"
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
LINES = """2,85123A,WHITE HEART,6,2010-12-02 08:26:00,2.50,17850.0,United Kingdom
1,71053,WHITE LANTERN ,1,2010-12-01 08:26:00,3.39,17850.0,United Kingdom
3,85123A,HEART WHITE,2,2010-12-03 08:26:00,2.00,13047.0,France
4,85123A,WHITE HEART,2,2010-12-04 08:26:00,4.00,13047.0,France
"""
NOT_PURCHASES = """5,85123A,WHITE HEART,1,2010-12-05 08:26:00,2.50,,United Kingdom
C6,85123A,WHITE HEART,-6,2010-12-05 08:26:00,2.50,17850.0,United Kingdom
7,85123A,WHITE HEART,1,2010-12-05 08:26:00,0.0,17850.0,United Kingdom
8,POST,POSTAGE,1,2010-12-05 08:26:00,18.0,17850.0,United Kingdom
9,gift_0001_40,Gift Voucher £40,1,2010-12-05 08:26:00,34.0,17850.0,United Kingdom
"""


def load(src: Path, out: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    imported = import_online_retail(src, out)
    assert imported.events is not None
    now = datetime.now(UTC)
    dataset = load_dataset(Tables(imported.items, imported.events), now=now, strict=True)
    assert dataset.events is not None
    assert (imported.n_items, imported.n_events) == (len(dataset.items), len(dataset.events))
    return dataset.items, dataset.events


def test_events_are_the_lines_that_are_purchases_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "online-retail.csv").write_text(HEADER + LINES + NOT_PURCHASES)

    _, events = load(tmp_path, tmp_path / "out")

    assert events.drop("timestamp").rows() == [
        ("17850", "71053", "purchase", 1.0, 3.39),
        ("17850", "85123A", "purchase", 6.0, 15.0),
        ("13047", "85123A", "purchase", 2.0, 4.0),
        ("13047", "85123A", "purchase", 2.0, 8.0),
    ]
    assert events["timestamp"][0] == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def test_items_have_their_most_frequent_spelling_and_median_price(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + LINES + NOT_PURCHASES)

    items, _ = load(tmp_path / "a.csv", tmp_path / "out")

    assert items.select("item_id", "title", "price").rows() == [
        ("71053", "WHITE LANTERN", 3.39),
        ("85123A", "WHITE HEART", 2.5),
    ]


def test_copies_with_american_dates_and_old_encoding_give_the_same(tmp_path: Path) -> None:
    text = HEADER + LINES + NOT_PURCHASES
    (tmp_path / "a.csv").write_text(text, "utf-8")
    american = text.replace(" 08:26:00", " 8:26")
    for day in range(1, 6):
        american = american.replace(f"2010-12-0{day}", f"12/{day}/2010")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(american.encode("cp1252")))

    items, events = load(tmp_path / "a.csv", tmp_path / "a")
    other_items, other_events = load(tmp_path / "b.csv.gz", tmp_path / "b")

    assert items.equals(other_items)
    assert events.equals(other_events)


def test_another_table_is_an_error(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    out = tmp_path / "out"

    with pytest.raises(DataError, match="src must be the table or a folder with one of"):
        import_online_retail(table, out)
    table.write_text("StockCode\n1\n")
    with pytest.raises(SchemaError, match=r"missing \['InvoiceNo', .*got \['StockCode'\]"):
        import_online_retail(table, out)
    table.write_text(HEADER + NOT_PURCHASES)
    with pytest.raises(DataError, match="must hold purchases, got none"):
        import_online_retail(table, out)
    table.write_text((HEADER + LINES).replace("2010-12-01", "1 Dec 2010"))
    with pytest.raises(DataError, match=r"InvoiceDate of .* must be written like"):
        import_online_retail(table, out)
    assert not out.exists()


@pytest.mark.parametrize("damage", [b"no archive", gzip.compress(LINES.encode())[:-20], b""])
def test_a_damaged_archive_is_an_error(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "b.csv.gz").write_bytes(damage)

    with pytest.raises(DataError, match=r"b\.csv\.gz cannot be read"):
        import_online_retail(tmp_path / "b.csv.gz", tmp_path / "out")


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there: set RECSYS_DATA to test it")
def test_the_published_table_has_the_purchases_that_a_loop_over_it_finds(tmp_path: Path) -> None:
    start = time.perf_counter()
    items, events = load(REAL, tmp_path / "out")
    seconds = time.perf_counter() - start

    # Counted with csv.DictReader over the published file, by the definition in words.
    assert (len(events), len(items), events["user_id"].n_unique()) == (396_337, 3_659, 4_334)
    cake_stand = items.row(by_predicate=pl.col("item_id") == "22423", named=True)
    assert (cake_stand["title"], cake_stand["price"]) == ("REGENCY CAKESTAND 3 TIER", 12.75)
    assert seconds < 30, "this takes a second or two"
