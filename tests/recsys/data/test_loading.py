import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.loading import (
    check_items,
    load_events,
    load_items,
    load_photos,
    load_relations,
    scan_table,
)
from recsys.data.quarantine import ROW
from recsys.errors import DataError
from recsys.schema import EventSchema, ItemSchema, PhotoSchema, RelationSchema

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IDS = pl.Series(["a", "b"])


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_item_with_a_bad_picture_stays_without_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    table = write(tmp_path / "items.csv", "item_id,image", "a,a.jpg", "b,b.jpg", "c,../c.jpg", "d,")

    items, report = load_items(table, images_root=tmp_path)

    assert items.select("item_id", "image").rows() == [
        ("a", "a.jpg"),
        ("b", None),
        ("c", None),
        ("d", None),
    ]
    assert items.columns == ItemSchema.column_names()
    assert (report.n_rows, report.n_valid) == (4, 4)
    assert report.failures.select("row", "rule", "got", "image").rows() == [
        (2, "image|exists", "b.jpg", "b.jpg"),
        (3, "image|inside_root", "../c.jpg", "../c.jpg"),
    ]


def test_some_rows_of_a_table_are_checked_by_rules_that_replace_those_of_the_schema(
    tmp_path: Path,
) -> None:
    table = write(tmp_path / "items.csv", "item_id,image", "a,", "a,a.jpg", "b,", "b,", ",")
    rows = scan_table(table, ItemSchema).slice(1, 4)

    items, report = check_items(rows, tmp_path, rules={"item_id_is_unique": pl.col(ROW) != 1})

    assert items.select(ROW, "item_id").rows() == [(2, "b"), (3, "b")]
    assert report.failures.select(ROW, "rule").rows() == [
        (1, "item_id_is_unique"),
        (4, "item_id|nullability"),
    ]


def test_a_picture_that_two_items_share_is_checked_once_and_reported_for_both(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"not a picture")
    table = write(tmp_path / "items.csv", "item_id,image", "a,x.jpg", "b,x.jpg")
    checked: list[Path] = []

    def check_image(path: Path) -> str:
        checked.append(path)
        return "it is a page"

    items, report = load_items(table, images_root=tmp_path, check_image=check_image)

    assert len(checked) == 1
    assert items["image"].to_list() == [None, None]
    assert report.counts() == {"image|decodes": 2}
    assert report.failures["reason"].to_list() == ["it is a page"] * 2
    assert report.lines() == [
        "items: 2 of 2 rows: image must be a picture that can be decoded; "
        "2 like 'x.jpg': it is a page; they stay"
    ]


def test_the_report_says_how_many_rows_another_spelling_would_mend(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    table = write(tmp_path / "items.csv", "item_id,image", "a,x.JPG", "b,no.jpg", "c,x.jpg?v=2")

    report = load_items(table, images_root=tmp_path).report

    assert report.lines() == [
        "items: 3 of 3 rows: image must be an existing file; "
        "2 like 'x.JPG': did you mean 'x.jpg'?; they stay"
    ]


def test_pictures_in_another_form_of_unicode_are_loaded_as_their_files(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).write_bytes(b"")
    items = write(tmp_path / "items.csv", "item_id,image", f"a,{composed}", "b,")
    photos = write(tmp_path / "photos.csv", "image,item_id", f"{composed},a")

    frame, report = load_items(items, images_root=tmp_path)
    assert frame["image"].to_list() == [decomposed, None]
    assert report.counts() == {}
    loaded = load_photos(photos, frame["item_id"], images_root=tmp_path)
    assert loaded.frame["image"].to_list() == [decomposed]


def test_bad_rows_and_bad_pictures_are_reported_in_row_order(tmp_path: Path) -> None:
    table = write(tmp_path / "items.csv", "item_id,image,price", "a,x.jpg,1", "b,,-1", "c,y.jpg,1")

    report = load_items(table, images_root=tmp_path).report

    assert report.failures["row"].to_list() == [1, 2, 3]
    assert (report.n_rows, report.n_valid) == (3, 3)


def test_picture_paths_are_relative_to_the_given_root(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"picture")
    table = write(tmp_path / "tables" / "items.csv", "item_id,image", "a,a.jpg")

    assert load_items(table, images_root=table.parent).frame["image"].to_list() == [None]
    assert load_items(table, images_root=tmp_path).frame["image"].to_list() == ["a.jpg"]


def test_events_of_unknown_items_or_from_the_future_are_quarantined(tmp_path: Path) -> None:
    table = write(
        tmp_path / "events.csv",
        "user_id,item_id,kind,timestamp",
        "u,a,view,2026-02-28",
        "u,c,view,2026-02-28",
        "u,b,view,2026-03-01T00:00:00.000001",
        "u,b,view,2026-03-01T01:00+01:00",
        ",b,view,2026-02-01",
    )

    events, report = load_events(table, IDS, now=NOW)

    assert events["item_id"].to_list() == ["a", "b"]
    assert events.columns == EventSchema.column_names()
    assert report.failures.select("row", "rule").rows() == [
        (2, "item_id|known"),
        (3, "timestamp|not_future"),
        (5, "user_id|nullability"),
    ]
    assert report.failures["got"][0] == "c"


def test_now_needs_a_zone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="now must have a time zone, got 2026-03-01"):
        load_events(tmp_path / "events.csv", IDS, now=NOW.replace(tzinfo=None))


def test_bad_photos_are_removed(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(b"picture")
    table = write(
        tmp_path / "photos.csv",
        "image,item_id,category,split",
        "1.jpg,a,,train",
        "2.jpg,,Fruit > Apple,",
        "3.jpg,,,test",
        "3.jpg,z,Fruit,test",
        "3.jpg,a,,holdout",
        "4.jpg,a,,test",
        ",a,,test",
    )

    photos, report = load_photos(table, IDS, images_root=tmp_path)

    assert photos["image"].to_list() == ["1.jpg", "2.jpg", "3.jpg"]
    assert photos.columns == PhotoSchema.column_names()
    assert (report.n_rows, report.n_valid) == (7, 3)
    assert report.failures.select("row", "rule").rows() == [
        (4, "item_id|known"),
        (5, "split|check__known"),
        (6, "image|exists"),
        (7, "image|nullability"),
    ]


def test_damage_that_shows_only_while_reading_is_a_data_error(tmp_path: Path) -> None:
    table = write(tmp_path / "items.csv", "item_id,title", "a,Mug", "b,Cup,extra,fields")

    with pytest.raises(
        DataError, match=r"items.csv cannot be read: line 3 has 4 cells, the header"
    ):
        load_items(table, images_root=tmp_path)


def test_text_that_is_not_utf8_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(b"item_id,title\na,caf\xe9\n")

    with pytest.raises(
        DataError, match=r"items.csv must be UTF-8, .* 0xe9 in line 2.*iconv -f WIN"
    ):
        load_items(tmp_path / "items.csv")


def test_a_table_with_a_header_only_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="table items must hold rows, got none"):
        load_items(write(tmp_path / "items.csv", "item_id,title"))


def test_types_may_differ_between_the_lines_of_ndjson(tmp_path: Path) -> None:
    table = write(
        tmp_path / "items.ndjson",
        '{"item_id": 12, "price": "12", "category": ["Kitchen", "Mugs"], "available": true,'
        ' "attributes": {"size": 3}, "created_at": 1767225600}',
        '{"item_id": "012", "price": 12, "category": "Home > Vases", "available": "no",'
        ' "attributes": [{"key": "size", "value": "3"}], "created_at": "2026-01-01"}',
        '{"item_id": "c", "price": [1], "category": {"id": 1}, "available": 1, "title": ["x"],'
        ' "attributes": "{\\"size\\": 3}", "created_at": [1]}',
    )

    items, report = load_items(table)

    assert items["item_id"].to_list() == ["12", "012", "c"]
    assert items["price"].to_list() == [12.0, 12.0, None]
    assert items["category"].to_list() == [["Kitchen", "Mugs"], ["Home", "Vases"], []]
    assert items["available"].to_list() == [True, False, True]
    assert items["attributes"].to_list() == [[{"key": "size", "value": "3"}]] * 3
    assert items["created_at"].to_list() == [datetime(2026, 1, 1, tzinfo=UTC)] * 2 + [None]
    assert report.kept() == dict.fromkeys(
        (f"{name}|unreadable" for name in ("category", "created_at", "price", "title")), 1
    )


def test_what_polars_cannot_read_is_read_by_line(tmp_path: Path) -> None:
    table = write(
        tmp_path / "items.ndjson",
        *['{"item_id": "a", "price": 1}'] * 2,
        '\n{"item_id": "b", "price": NaN}',
    )

    items, report = load_items([table])

    assert items["price"].to_list() == [1.0, None]
    assert report.counts() == {"item_id_is_unique": 1}


def test_a_damaged_line_is_named_with_its_file(tmp_path: Path) -> None:
    good = write(tmp_path / "1.csv", "item_id", "a")
    lines = ['{"item_id": "b"}'] * 1_500
    bad = write(tmp_path / "2.ndjson", *lines, "[]")

    with pytest.raises(DataError, match=r"2\.ndjson cannot be read: line 1501 must be a JSON obj"):
        load_items([good, bad])


def test_an_id_that_another_program_has_changed_is_reported_as_such(tmp_path: Path) -> None:
    ids = pl.Series(["00123", "17850", "Abc"])
    table = write(
        tmp_path / "events.csv",
        "user_id,item_id,kind,timestamp",
        *(f"u,{item_id},view,2026-02-01" for item_id in ("123", "17850.0", "ABC", "00123", "7")),
    )

    report = load_events(table, ids, now=NOW).report

    assert report.failures.select("row", "rule", "got").rows() == [
        (1, "item_id|spelled", "123"),
        (2, "item_id|spelled", "17850.0"),
        (3, "item_id|spelled", "ABC"),
        (5, "item_id|known", "7"),
    ]
    assert "must be written as in the items table" in report.lines()[0]


def test_impressions_are_no_events_of_users(tmp_path: Path) -> None:
    table = write(
        tmp_path / "events.csv",
        "user_id,item_id,kind,timestamp,propensity",
        "u,a, Impression,2026-02-01,0.5",
        "u,a,view,2026-02-01,",
    )

    events, report = load_events(table, IDS, now=NOW)

    assert events["kind"].to_list() == ["view"]
    assert (report.n_rows, report.n_valid, report.counts()) == (2, 1, {})


def test_kinds_that_differ_in_case_are_one_kind(tmp_path: Path) -> None:
    table = write(
        tmp_path / "events.csv",
        "user_id,item_id,kind,timestamp",
        "u ,a, Purchase,2026-02-01",
        "u,a ,purchase,2026-02-01",
    )

    events = load_events(table, IDS, now=NOW).frame

    assert events.n_unique() == 1


def test_an_optional_cell_that_breaks_a_rule_is_empty_and_its_row_stays(tmp_path: Path) -> None:
    table = write(
        tmp_path / "events.csv",
        "user_id,item_id,kind,timestamp,quantity,value",
        "u,a,view,2026-02-01,-1,1e308",
        "u,a,view,1769904000,2,N/A",
        "u,a,view,1970-01-20,2,3",
    )

    events, report = load_events(table, IDS, now=NOW)

    assert events.select("quantity", "value").rows() == [(1.0, None), (2.0, None)]
    assert report.kept() == {"quantity|min": 1, "value|max": 1, "value|unreadable": 1}
    assert report.failures.filter(~pl.col("kept"))["rule"].to_list() == ["timestamp|min"]


def relations(*lines: str) -> pl.DataFrame:
    rows = [line.split(",") for line in lines]
    table = pl.DataFrame(rows, ["left", "right", "kind", "weight"], orient="row")
    return table.with_columns(pl.all().replace("", None))


RELATED_IDS = pl.Series(["a", "b", "c", "007"])


def test_relations_are_read_with_their_defaults_and_kinds_in_lower_case(tmp_path: Path) -> None:
    lines = ("right,kind,left", "b,Goes_With , a", "007,part_of,c")
    table = write(tmp_path / "relations.csv", *lines)

    found, report = load_relations(table, RELATED_IDS)

    assert found.columns == RelationSchema.column_names()
    assert found.rows() == [("a", "b", "goes_with", 1.0), ("c", "007", "part_of", 1.0)]
    assert report.counts() == {}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("z,b,goes_with,1", "left|known"),
        ("a,z,goes_with,1", "right|known"),
        ("a,7,goes_with,1", "right|spelled"),
        (",b,goes_with,1", "left|nullability"),
        ("a,a,part_of,1", "right|another"),
        ("a,b,likes,1", "kind|check__relation"),
        ("a,b,,1", "kind|nullability"),
        ("a,b,goes_with,0", "weight|min_exclusive"),
        ("a,b,goes_with,-2", "weight|min_exclusive"),
        ("a,b,goes_with,nan", "weight|max"),
        ("a,b,goes_with,strong", "weight|unreadable"),
    ],
)
def test_a_bad_relation_is_left_out_and_named(line: str, rule: str) -> None:
    found, report = load_relations(relations(line, "a,c,goes_with,2"), RELATED_IDS)

    assert found.rows() == [("a", "c", "goes_with", 2.0)]
    assert (report.n_rows, report.n_valid) == (2, 1)
    assert report.failures.select("row", "rule", "kept").rows() == [(1, rule, False)]


def test_of_relations_between_the_same_items_the_first_valid_one_counts() -> None:
    table = relations(
        "a,b,goes_with,0",
        "b,a,goes_with,2",
        "a,b,goes_with,3",
        "a,b,part_of,4",
        "b,a,part_of,5",
        "a,b,replaces,6",
        "b,a,replaces,7",
        "a,b,replaces,8",
    )

    found, report = load_relations(table, RELATED_IDS)

    assert found["weight"].to_list() == [2, 4, 6, 7], "only a replacement has a direction"
    assert report.counts() == {"relation_is_unique": 3, "weight|min_exclusive": 1}
    assert report.lines()[0] == (
        "relations: 3 of 8 rows: must be a relation that no earlier row has; "
        "row 3 has 'a goes_with b'"
    )
