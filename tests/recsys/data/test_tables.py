import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.data.loading import scan_table
from recsys.data.tables import Tables, find_files, scan_file
from recsys.errors import DataError, InvalidArgumentError, SchemaError
from recsys.schema import ItemSchema

CSV = "item_id,price\n001,2.5\n002,\n"


def read(source: Path | str | list[Path]) -> list[tuple[str, float | None]]:
    return scan_table(source, ItemSchema).select("item_id", "price").collect().rows()


@pytest.mark.parametrize("name", ["items.csv", "ITEMS.CSV", "items.csv.gz", "items.ndjson"])
def test_text_formats_give_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    ndjson = '{"item_id": "001", "price": 2.5}\n{"item_id": "002"}\n'
    text = ndjson if "json" in name else CSV
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    assert read(path) == [("001", 2.5), ("002", None)]


@pytest.mark.parametrize("name", ["items.parquet", "items.pq"])
def test_parquet_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pl.DataFrame({"item_id": ["001", "002"], "price": [2.5, None]}).write_parquet(path)

    assert read(path) == [("001", 2.5), ("002", None)]


def test_scanning_reads_no_row(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,price\n" + "1,2\n" * 1000 + "1,2,3,4\n")

    frame = scan_table(path, ItemSchema)  # the damage in the last line is not seen yet

    assert isinstance(frame, pl.LazyFrame)
    with pytest.raises(pl.exceptions.ComputeError):
        frame.collect()


def test_only_columns_of_the_schema_are_read_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["a"], "junk": [1], "more": [2]}).write_parquet(path)

    assert "PROJECT 1/3 COLUMNS" in scan_table(path, ItemSchema).explain()


def test_a_list_and_a_glob_keep_the_order_of_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"item_id\n{name}1\n{name}2\n")

    from_glob = [item_id for item_id, _ in read(str(tmp_path / "*.csv"))]
    from_list = [item_id for item_id, _ in read([tmp_path / "b.csv", tmp_path / "a.csv"])]

    assert from_glob == ["a1", "a2", "b1", "b2"]
    assert from_list == ["b1", "b2", "a1", "a2"]


def test_files_of_one_table_may_differ_in_format_columns_and_types(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("title,item_id\nMug,7\n")
    pl.DataFrame({"item_id": [8], "price": [3]}).write_parquet(tmp_path / "2.parquet")

    assert read(str(tmp_path / "*")) == [("7", None), ("8", 3.0)]


def test_a_file_with_a_star_in_its_name_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "[a]*.csv").write_text("item_id\na\n")

    assert find_files(tmp_path / "[a]*.csv") == [tmp_path / "[a]*.csv"]


def test_a_name_that_exists_is_a_name_and_its_neighbours_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "shop [2026]"
    folder.mkdir()
    for suffix in ("parquet", "csv", "ndjson"):
        for name, item_id in (("items[1]", "right"), ("items1", "wrong")):
            path = folder / f"{name}.{suffix}"
            frame = pl.DataFrame({"item_id": [item_id]})
            writers = {"parquet": frame.write_parquet, "csv": frame.write_csv}
            writers.get(suffix, frame.write_ndjson)(path)

        assert read(folder / f"items[1].{suffix}") == [("right", None)]
        assert read(str(folder / f"items*.{suffix}")) == [("wrong", None), ("right", None)]
        assert read(str(folder / f"items[1-3].{suffix}")) == [("wrong", None)]


@pytest.mark.parametrize(
    "name", ["~root", "~", "a*b", "what?", "$HOME", "50%20", "#1", "-x", "a b"]
)
def test_names_with_special_characters_are_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    for suffix in ("csv", "ndjson"):
        text = CSV if suffix == "csv" else '{"item_id": "001", "price": 2.5}\n{"item_id": "002"}\n'
        Path(name, f"{name}.{suffix}").write_text(text)

        assert read(f"{name}/{name}.{suffix}") == [("001", 2.5), ("002", None)]
        assert read(f"{name}/*.{suffix}") == [("001", 2.5), ("002", None)]


def test_a_tilde_is_the_home_folder_where_no_such_name_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "items.csv").write_text(CSV)

    assert find_files("~/items.csv") == find_files("~/item?.csv") == [tmp_path / "items.csv"]


def test_the_nearest_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").touch()

    with pytest.raises(DataError, match=r"nothing matches .*Item.parquet; did you mean items.par"):
        find_files(tmp_path / "Item.parquet")


def test_a_folder_that_may_not_be_read_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"cannot be read .*too long"):
        find_files("x" * 300)
    with pytest.raises(DataError, match="nothing matches"):
        find_files("a\0b.csv")


def test_names_of_columns_may_differ_in_case_and_have_blanks_around(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(" Item_ID ,PRICE,title\n1,2,Mug\n")

    assert read(path) == [("1", 2.0)]


@pytest.mark.parametrize("header", ["item_id,price,item_id", "Item_ID,price,item_id "])
def test_two_columns_of_one_name_are_a_schema_error(tmp_path: Path, header: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text(header + "\n1,2,3\n")

    with pytest.raises(SchemaError, match="column 'item_id' must be there once, got"):
        scan_table(path, ItemSchema)


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("\ufeff" + CSV, encoding="utf-8")

    assert read(tmp_path / "items.csv") == [("001", 2.5), ("002", None)]


def test_attributes_that_only_late_lines_have_are_found(tmp_path: Path) -> None:
    path = tmp_path / "items.ndjson"
    path.write_text('{"item_id": 1}\n' * 500 + '{"item_id": 2, "attributes": {"colour": "red"}}\n')

    last = scan_table(path, ItemSchema).select("attributes").collect()["attributes"][-1]

    assert last.to_list() == [{"key": "colour", "value": "red"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", b"", "the file is empty"),
        ("items.parquet", b"PAR1 but not really", r"items.parquet cannot be read \(.*PAR1"),
        ("items.ndjson", b'{"item_id": 1}\n{"item_id":\n', "items.ndjson cannot be read: line 2"),
        ("items.csv", "item_id\n1\n".encode("utf-16"), "items.csv must be UTF-8, got UTF-16"),
        ("items.ndjson", '{"item_id": 1}'.encode("utf-16"), "items.ndjson must be UTF-8, got UTF"),
        ("items.csv.gz", b"\x1f\x8b broken", r"items.csv.gz cannot be read"),
        ("items.xlsx", b"PK", r"must end in one of .parquet, .*got .*items.xlsx"),
    ],
)
def test_a_file_that_is_not_a_table_is_a_data_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        scan_file(tmp_path / name)


@pytest.mark.parametrize(
    ("table", "got"),
    [([1], "int in a list"), (["a.csv", [None]], "NoneType in a list"), (b"a.csv", "bytes")],
)
def test_what_names_no_file_is_refused(table: Any, got: str) -> None:
    for name, tables in (("items", {"items": table}), ("photos", {"items": "a", "photos": table})):
        with pytest.raises(InvalidArgumentError, match=f"{name} must be a path, .* got {got}$"):
            Tables(**tables)
    Tables(items=["a.csv", Path("b.csv"), ["c.csv"]])


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing matches .*items.csv"):
        find_files(tmp_path / "items.csv")
    with pytest.raises(DataError, match=r"nothing matches .*\*.csv"):
        find_files([str(tmp_path / "*.csv")])
    with pytest.raises(DataError, match="must be a file or a glob, got folder"):
        find_files(tmp_path)


def test_the_home_of_a_user_who_has_none_is_a_folder_that_is_not_there(homeless: None) -> None:
    with pytest.raises(DataError, match=r"nothing matches ~/items.csv"):
        find_files("~/items.csv")


def test_a_schema_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(CSV)
    (tmp_path / "2.csv").write_text("id\n1\n")

    with pytest.raises(SchemaError, match=r"2\.csv: column 'item_id' is missing"):
        scan_table(str(tmp_path / "*.csv"), ItemSchema)
