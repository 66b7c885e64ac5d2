from pathlib import Path

import polars as pl
import pytest

from recsys.bulk.table import copy_table, fingerprint, repeated_rows
from recsys.errors import DataError
from recsys.schema import ItemSchema


def copy_items(source: Path, path: Path) -> int:
    return copy_table(source, ItemSchema, path, 60, table="items")


def test_the_copy_has_the_rows_in_order_in_a_row_group_for_each_part(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    ids = [f"{n:03}" for n in range(250)]
    pl.DataFrame({"item_id": ids, "title": ids}).write_csv(tmp_path / "items.csv")
    assert copy_items(tmp_path / "items.csv", tmp_path / "copy.parquet") == 250
    found = pl.read_parquet(tmp_path / "copy.parquet")
    assert found["title"].to_list() == ids
    assert set(ItemSchema.column_names()) < set(found.columns)
    groups = parquet.ParquetFile(tmp_path / "copy.parquet").metadata
    sizes = [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert sizes == [60, 60, 60, 60, 10]


def test_a_table_that_breaks_off_is_refused_by_name_and_no_copy_is_left(tmp_path: Path) -> None:
    (tmp_path / "items.ndjson").write_text('{"item_id": "a"}\n{"item_id": ')
    with pytest.raises(DataError, match=r"cannot be read"):
        copy_items(tmp_path / "items.ndjson", tmp_path / "copy.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["items.ndjson"]


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id\n")
    with pytest.raises(DataError, match="table items must hold rows, got none"):
        copy_items(tmp_path / "items.csv", tmp_path / "copy.parquet")


@pytest.mark.parametrize(
    "ids", [["a", "b"], ["a", "a", "b", "a"], [None, None, "b", "", "", "b"], ["b", "a"] * 500]
)
def test_repeated_rows_are_those_that_a_set_has_seen(tmp_path: Path, ids: list[str]) -> None:
    pl.DataFrame({"item_id": ids}, schema={"item_id": pl.String}).write_parquet(tmp_path / "t")
    seen: set[str | None] = {None}
    wanted = []
    for row, item_id in enumerate(ids):
        if item_id in seen and item_id is not None:
            wanted.append(row)
        seen.add(item_id)
    assert repeated_rows(tmp_path / "t").to_list() == wanted


def test_a_fingerprint_is_of_the_bytes_and_not_of_their_place(tmp_path: Path) -> None:
    for name, text in (("a.csv", "x"), ("b.csv", "y"), ("c.csv", "x")):
        (tmp_path / name).write_text(text)
    first, second, same = (fingerprint(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv"))
    assert len(first) == 64
    assert first == same != second
    together = [
        fingerprint([tmp_path / a, tmp_path / b])
        for a, b in (("a.csv", "b.csv"), ("b.csv", "a.csv"))
    ]
    assert len({first, second, *together, fingerprint(tmp_path / "*.csv")}) == 5
    with pytest.raises(DataError, match="nothing matches"):
        fingerprint(tmp_path / "gone.csv")
