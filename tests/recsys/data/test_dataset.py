import os
import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.data.dataset import Dataset, check_tables, load_dataset
from recsys.data.tables import Tables
from recsys.data.timestamps import from_us
from recsys.errors import DataError, InvalidArgumentError, SchemaError

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a folder with three tables of which two rows are bad, and two pictures."""
    shop = tmp_path / "shop"
    shop.mkdir()
    for name in ("a.jpg", "photo.jpg"):
        (shop / name).write_bytes(b"picture")
    (shop / "items.csv").write_text("item_id,title,image\na,Mug,a.jpg\n,Cup,\n")
    (shop / "events.csv").write_text(
        "user_id,item_id,kind,timestamp\nu,a,view,2026-01-01\nu,b,view,2026-01-02\n"
    )
    (shop / "photos.csv").write_text("image,item_id\nphoto.jpg,a\n")
    return shop


def load(shop: Path, **options: Any) -> Dataset:
    tables = (shop / "items.csv", shop / "events.csv", shop / "photos.csv")
    return load_dataset(Tables(*tables), now=NOW, **options)


def test_events_of_an_item_that_was_quarantined_are_quarantined_too(shop: Path) -> None:
    dataset = load(shop)

    assert dataset.items["item_id"].to_list() == ["a"]
    assert dataset.events is not None
    assert dataset.events["item_id"].to_list() == ["a"]
    assert dataset.quarantine.counts() == {
        "items": {"item_id|nullability": 1},
        "events": {"item_id|known": 1},
        "photos": {},
    }


def test_relations_of_an_item_that_was_quarantined_are_quarantined_too(shop: Path) -> None:
    (shop / "items.csv").write_text("item_id,price\na,1\nb,2\n,3\n")
    (shop / "relations.csv").write_text("left,right,kind\na,b,goes_with\na,c,replaces\n")
    tables = Tables(shop / "items.csv", relations=shop / "relations.csv")

    dataset = load_dataset(tables, now=NOW)

    assert dataset.relations is not None
    assert dataset.relations.rows() == [("a", "b", "goes_with", 1.0)]
    assert dataset.quarantine.counts()["relations"] == {"right|known": 1}
    assert dataset.select_items(["item_id"]).relations is None
    alone = load_dataset(Tables(shop / "items.csv"), now=NOW)
    assert dataset.fingerprint() != alone.fingerprint()
    with pytest.raises(DataError, match=r"relations: 1 of 2 rows: right must be a valid row"):
        load_dataset(tables, now=NOW, strict=True)


def test_a_missing_table_is_none_in_the_dataset(shop: Path) -> None:
    dataset = load_dataset(Tables(shop / "items.csv"), now=NOW)

    assert dataset.events is None
    assert dataset.photos is None
    assert dataset.relations is None
    assert [report.table for report in dataset.quarantine.reports] == ["items"]


def test_the_images_root_defaults_to_the_items_folder_and_is_none_without_pictures(
    shop: Path, tmp_path: Path
) -> None:
    (shop / "plain.csv").write_text("item_id\na\n")

    assert load(shop).images_root == shop
    elsewhere = Tables(shop / "items.csv", images_root=tmp_path)
    assert load_dataset(elsewhere, now=NOW).images_root is None
    assert load_dataset(Tables(shop / "plain.csv"), now=NOW).images_root is None


def frames(shop: Path) -> dict[str, pl.DataFrame]:
    names = ("items", "events", "photos")
    return {name: pl.read_csv(shop / f"{name}.csv") for name in names}


def test_photos_alone_have_no_items_and_their_own_folder_of_pictures(shop: Path) -> None:
    (shop / "photos.csv").write_text("image,category\nphoto.jpg,Mug\n")
    dataset = load_dataset(Tables(photos=shop / "photos.csv"), now=NOW)

    assert len(dataset.items) == 0
    assert dataset.photos is not None
    assert dataset.photos["category"].to_list() == [["Mug"]]
    assert (dataset.images_root, dataset.items_as_of_us) == (shop, None)
    assert [report.table for report in dataset.quarantine.reports] == ["photos"]


@pytest.mark.parametrize(
    ("tables", "where"),
    [
        ({}, ""),
        ({"photos": "photos.csv", "events": "events.csv"}, " where there are events"),
        ({"events": "a.csv", "relations": "b.csv"}, " where there are events and relations"),
    ],
)
def test_only_photos_can_do_without_items(tables: dict[str, str], where: str) -> None:
    wanted = f"items must be a table{where}, got none; only labelled photos"
    with pytest.raises(InvalidArgumentError, match=wanted):
        Tables(**tables)


def test_frames_are_validated_as_files_are_and_have_the_same_fingerprint(shop: Path) -> None:
    dataset = load_dataset(Tables(**frames(shop), images_root=shop), now=NOW)

    assert dataset.items.equals(load(shop).items)
    assert dataset.quarantine.lines() == load(shop).quarantine.lines()
    assert dataset.fingerprint() == load(shop).fingerprint()


def test_another_cell_of_a_frame_changes_the_fingerprint(shop: Path) -> None:
    tables = frames(shop)
    tables["items"] = tables["items"].with_columns(title=pl.lit("Jug"))

    changed = load_dataset(Tables(**tables, images_root=shop), now=NOW)

    assert changed.fingerprint() != load(shop).fingerprint()


def test_files_and_frames_may_be_mixed(shop: Path) -> None:
    tables = Tables(shop / "items.csv", frames(shop)["events"], shop / "photos.csv")

    assert load_dataset(tables, now=NOW).fingerprint() == load(shop).fingerprint()


def test_frames_with_pictures_need_the_folder_of_the_pictures(shop: Path) -> None:
    items = frames(shop)["items"]

    with pytest.raises(DataError, match=r"images_root must be the folder of 'a\.jpg', got None"):
        load_dataset(Tables(items), now=NOW)
    assert load_dataset(Tables(items.drop("image")), now=NOW).images_root is None


@pytest.mark.parametrize("table", ["items", "events", "photos", "relations"])
def test_a_table_without_any_file_is_a_data_error(shop: Path, table: str) -> None:
    tables: dict[str, Any] = {"items": shop / "items.csv", table: []}

    with pytest.raises(DataError, match="must have at least one file, got an empty list"):
        load_dataset(Tables(**tables), now=NOW)


@pytest.mark.parametrize("table", ["items", "events", "photos", "relations"])
def test_a_table_of_another_type_is_refused_at_once(table: str) -> None:
    wrong: dict[str, Any] = {"items": "items.csv", table: 7}

    with pytest.raises(InvalidArgumentError, match=f"{table} must be a path.*got int"):
        Tables(**wrong)
    with pytest.raises(InvalidArgumentError, match=r"got LazyFrame; call \.collect\(\) first"):
        Tables(**wrong | {table: pl.LazyFrame()})


def as_of(tables: Tables) -> datetime:
    as_of_us = load_dataset(tables, now=NOW).items_as_of_us
    assert as_of_us is not None
    return from_us(as_of_us)


def test_items_are_as_of_the_newest_of_their_files(shop: Path) -> None:
    (shop / "items-2.csv").write_text("item_id\nc\n")
    for name, day in (("items.csv", 7), ("items-2.csv", 9), ("events.csv", 20)):
        time_s = datetime(2026, 2, day, tzinfo=UTC).timestamp()
        os.utime(shop / name, (time_s, time_s))

    tables = Tables(shop / "items*.csv", shop / "events.csv")
    assert as_of(tables) == datetime(2026, 2, 9, tzinfo=UTC)
    os.utime(shop / "items.csv", (2**32, 2**32))
    assert as_of(tables) == NOW  # the clock of the exporting machine was ahead


def test_items_in_a_frame_are_as_of_now_and_an_export_may_say_when_it_was_made(shop: Path) -> None:
    items = pl.DataFrame({"item_id": ["a"]})
    moment = datetime(2026, 2, 9, 2, tzinfo=timezone(timedelta(hours=1)))

    assert as_of(Tables(items)) == NOW
    assert as_of(Tables(items, as_of=moment)) == moment
    assert as_of(Tables(shop / "items.csv", as_of=moment)) == moment


def test_an_export_in_the_future_or_without_a_time_zone_is_refused() -> None:
    items = pl.DataFrame({"item_id": ["a"]})

    with pytest.raises(
        InvalidArgumentError, match=r"as_of must be .* at most now .* got 2026-03-02"
    ):
        as_of(Tables(items, as_of=NOW + timedelta(days=1)))
    with pytest.raises(InvalidArgumentError, match="as_of must have a time zone"):
        as_of(Tables(items, as_of=NOW.replace(tzinfo=None)))


def with_photos(shop: Path, rows: list[str]) -> pl.DataFrame:
    for row in rows:
        (shop / row.split(",")[0]).write_bytes(b"picture")
    (shop / "photos.csv").write_text("\n".join(["image,item_id,split", *rows]) + "\n")
    photos = load(shop).photos
    assert photos is not None
    return photos


def test_where_no_photo_has_a_split_some_labelled_ones_are_held_out(shop: Path) -> None:
    labelled, unlabelled = ([f"{kind}{n}.jpg" for n in range(200)] for kind in "lu")
    rows = [*(f"{name},a," for name in labelled), *(f"{name},," for name in unlabelled)]
    photos = with_photos(shop, rows)
    splits = photos.filter(pl.col("item_id").is_not_null())["split"].value_counts()
    counts = dict(splits.iter_rows())
    assert counts["train"] > 140
    assert min(counts["val"], counts["test"]) >= 10
    assert photos.filter(pl.col("item_id").is_null())["split"].unique().to_list() == ["train"]
    others = with_photos(shop, [*rows[50:150], "new.jpg,a,train"])
    known = others.filter(pl.col("image") != "new.jpg")  # a photo stays where it was
    assert known.join(photos, on=["image", "split"], how="anti").is_empty()
    assert others.filter(image="new.jpg")["split"].item() == "train"


def test_where_a_photo_has_a_split_the_others_are_for_training(shop: Path) -> None:
    photos = with_photos(shop, ["1.jpg,a,val", *(f"{n}.jpg,a," for n in range(2, 40))])
    assert photos["split"].to_list() == ["val", *["train"] * 38]


def test_an_event_before_created_at_outvotes_it(shop: Path) -> None:
    (shop / "items.csv").write_text(
        "item_id,created_at\n,2020-01-01\na,2026-02-01\nb,2026-02-01\nc,2026-02-01\nd,2025-01-01\n"
    )
    (shop / "events.csv").write_text(
        "user_id,item_id,kind,timestamp\n"
        "u,a,view,2026-01-02\nu,a,view,2026-01-01\nu,b,view,2026-02-02\nu,d,view,2026-01-01\n"
    )

    dataset = load(shop)

    assert dataset.items["created_at"].dt.to_string("%F").to_list() == [
        "2026-01-01",
        "2026-02-01",
        "2026-02-01",
        "2025-01-01",
    ]
    report = dataset.quarantine.reports[0]
    assert report.kept() == {"created_at|first_event": 1}
    assert report.failures.filter("kept").select("row", "item_id").row(0) == (2, "a")
    assert report.n_valid == 4


def test_strictness_raises_with_all_counts(shop: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)items: 1 of 2 rows.*events: 1 of 2 rows"):
        load(shop, strict=True)


def test_a_table_without_a_valid_row_is_an_error_that_says_why_yet_can_be_checked(
    shop: Path,
) -> None:
    (shop / "events.csv").write_text("user_id,item_id,kind,timestamp\nu,z,view,2026-01-01\n")

    with pytest.raises(DataError, match=r"(?s)table events must have a valid row.*1 of 1 rows"):
        load(shop)
    tables = Tables(shop / "items.csv", shop / "events.csv")
    checked = check_tables(tables, now=NOW).quarantine
    assert checked.counts()["events"] == {"item_id|known": 1}


def test_a_missing_column_is_a_schema_error(shop: Path) -> None:
    (shop / "items.csv").write_text("name\nMug\n")

    with pytest.raises(SchemaError, match=r"items\.csv: column 'item_id' is missing"):
        load(shop)


def test_all_pictures_are_checked_with_the_callers_check(shop: Path) -> None:
    dataset = load(shop, check_image=lambda path: "torn" if path.name == "a.jpg" else None)

    assert dataset.quarantine.counts()["items"] == {"image|decodes": 1, "item_id|nullability": 1}
    assert dataset.items["image"].to_list() == [None]


def test_the_fingerprint_does_not_depend_on_the_file_format_or_the_place(
    shop: Path, tmp_path: Path
) -> None:
    fingerprint = load(shop).fingerprint()
    copy = shutil.copytree(shop, tmp_path / "copy")  # keeps the times of change
    pl.read_csv(copy / "items.csv").write_parquet(copy / "items.parquet")
    tables = (copy / "items.parquet", copy / "events.csv", copy / "photos.csv")

    assert load(shop).fingerprint() == fingerprint
    assert load_dataset(Tables(*tables), now=NOW).fingerprint() == fingerprint


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("items.csv", "Mug", "Jug"),
        ("events.csv", "view", "cart"),
        ("photos.csv", "item_id\nphoto.jpg,a", "category\nphoto.jpg,Mugs"),
    ],
)
def test_the_fingerprint_changes_with_any_cell(shop: Path, table: str, old: str, new: str) -> None:
    fingerprint = load(shop).fingerprint()
    path = shop / table
    path.write_text(path.read_text().replace(old, new))

    assert load(shop).fingerprint() != fingerprint


def test_the_fingerprint_tells_a_missing_table_from_one_of_another_name(shop: Path) -> None:
    dataset = load(shop)
    prints = {
        dataset.fingerprint(),
        load_dataset(Tables(shop / "items.csv"), now=NOW).fingerprint(),
        load_dataset(Tables(shop / "items.csv", shop / "events.csv"), now=NOW).fingerprint(),
        load_dataset(Tables(shop / "items.csv", photos=shop / "photos.csv"), now=NOW).fingerprint(),
    }

    assert len(prints) == 4


@pytest.mark.parametrize("name", ["a.jpg", "photo.jpg"])
def test_the_fingerprint_changes_with_a_picture(shop: Path, name: str) -> None:
    fingerprint = load(shop).fingerprint()
    picture = shop / name
    state = picture.stat()
    picture.write_bytes(b"a longer picture")
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))
    by_size = load(shop).fingerprint()
    picture.write_bytes(b"picture")
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))

    assert len({fingerprint, by_size, load(shop).fingerprint()}) == 3
