import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.data.dataset import Dataset, load_dataset
from recsys.data.interactions import build_interactions
from recsys.data.sources.amazon_beauty import import_amazon_beauty
from recsys.data.splits import leave_last_out
from recsys.data.tables import Tables
from recsys.errors import DataError, SchemaError

ROOT = Path(__file__).parents[4]
REAL = ROOT / os.environ.get("RECSYS_DATA", "../shared/data") / "amazon-beauty"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """Return the published layout with three items and one user of three events."""
    items = {
        "item_id": ["1", "2", "3"],
        "asin": ["B001", "B002", "B003"],
        "title": ["nail lacquer", "", "cream"],
        "attributes": [[17, 3], [], [17]],
    }
    events = {"user_id": ["9", "9", "9"], "item_id": ["3", "2", "1"], "position": [0, 1, 2]}
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    return tmp_path


def load(src: Path) -> Dataset:
    imported = import_amazon_beauty(src, src / "out")
    assert imported.events is not None
    return load_dataset(Tables(imported.items, imported.events), now=datetime.now(UTC), strict=True)


def test_items_keep_titles_and_attributes(src: Path) -> None:
    items = load(src).items

    assert items["title"].to_list() == ["nail lacquer", None, "cream"]
    assert items["attributes"][0].to_list() == [
        {"key": "attribute_17", "value": "yes"},
        {"key": "attribute_3", "value": "yes"},
    ]
    assert items["attributes"][1].to_list() == []


def test_made_up_times_keep_the_published_order(src: Path) -> None:
    dataset = load(src)
    assert dataset.events is not None
    item_ids = dataset.items["item_id"].to_list()

    split = leave_last_out(build_interactions(dataset.events, item_ids))

    assert [item_ids[row] for row in split.train.item_rows] == ["3"]
    assert [item_ids[row] for row in split.validation.item_rows] == ["2"]
    assert [item_ids[row] for row in split.test.item_rows] == ["1"]


def test_another_layout_is_an_error(src: Path) -> None:
    pl.DataFrame({"user_id": ["1"]}).write_parquet(src / "events.parquet")
    with pytest.raises(SchemaError, match=r"missing \['item_id', 'position'\]"):
        import_amazon_beauty(src, src / "out")

    (src / "events.parquet").unlink()
    with pytest.raises(DataError, match=r"events\.parquet cannot be read"):
        import_amazon_beauty(src, src / "out")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is not there: set RECSYS_DATA to test it")
def test_the_published_tables_have_the_published_counts(tmp_path: Path) -> None:
    imported = import_amazon_beauty(REAL, tmp_path / "out")
    assert imported.events is not None
    now = datetime.now(UTC)
    dataset = load_dataset(Tables(imported.items, imported.events), now=now, strict=True)

    assert dataset.events is not None
    assert len(dataset.items) == 12_101
    assert len(dataset.events) == 198_502
    assert dataset.events["user_id"].n_unique() == 22_363
