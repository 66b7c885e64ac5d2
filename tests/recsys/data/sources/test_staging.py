from pathlib import Path

import polars as pl
import pytest

from recsys.data.sources.staging import require_columns, staging, write_tables
from recsys.errors import SchemaError
from recsys.schema import ItemSchema


def test_what_was_staged_appears_at_once_and_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    with staging(out) as scratch:
        (scratch / "items").write_text("x")
        assert not out.exists()

    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "items").read_text() == "x"
    assert out.stat().st_mode & 0o777 == 0o755


def test_nothing_is_left_when_staging_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staging(tmp_path / "out") as scratch:
        (scratch / "items").rename(scratch / "deep" / "items")

    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled_and_another_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()

    with staging(tmp_path / "empty") as scratch:
        (scratch / "items").touch()

    assert (tmp_path / "empty" / "items").exists()
    for name in ("full", "full/file"):
        with pytest.raises(ValueError, match="out must be new or an empty folder"):
            staging(tmp_path / name).__enter__()


def test_tables_are_written_in_the_canonical_columns_and_said_to_be_where_they_will_be(
    tmp_path: Path,
) -> None:
    imported = write_tables(tmp_path, tmp_path / "out", items=pl.DataFrame({"item_id": [7]}))

    items = pl.read_parquet(tmp_path / "items.parquet")
    assert ItemSchema.is_valid(items)
    assert items["item_id"].to_list() == ["7"]
    assert imported.items == tmp_path / "out" / "items.parquet"
    assert (imported.events, imported.photos, imported.images_root) == (None, None, None)
    assert (imported.n_items, imported.n_events, imported.n_photos) == (1, 0, 0)


def test_a_column_that_was_not_published_is_named() -> None:
    table = pl.DataFrame({"a": [1]})

    require_columns(table, ["a"], src=Path("a.csv"))
    with pytest.raises(SchemaError, match=r"a\.csv must have .*missing \['b'\], got \['a'\]"):
        require_columns(table, ["a", "b"], src=Path("a.csv"))
