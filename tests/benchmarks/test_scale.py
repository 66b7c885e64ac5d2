from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.scale import START, write_shop
from recsys.data.dataset import load_dataset
from recsys.data.tables import Tables
from recsys.data.timestamps import from_us


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(6_000, 300, folder)
    return folder


def test_a_large_shop_is_whole_and_of_about_the_wanted_size(shop: Path) -> None:
    tables = Tables(str(shop / "items.parquet"), str(shop / "events.parquet"))
    dataset = load_dataset(tables, now=from_us(2**51))
    assert not any(dataset.quarantine.counts().values())
    assert dataset.events is not None
    assert 4_000 < len(dataset.events) < 8_000
    assert len(dataset.items) == 300
    assert dataset.items["title"].n_unique() > 250
    assert dataset.events["timestamp"].min() >= START
    assert dataset.events["timestamp"].is_sorted()


def test_people_keep_to_a_few_topics(shop: Path) -> None:
    items = pl.read_parquet(shop / "items.parquet").select("item_id", "category")
    events = pl.read_parquet(shop / "events.parquet").join(items, on="item_id")
    topics = events.group_by("user_id").agg(pl.col("category").mode().first(), n=pl.len())
    own = events.join(topics, on="user_id", suffix="_own")
    assert (own["category"] == own["category_own"]).mean() > 0.5
    assert items["category"].n_unique() == 4


def test_the_same_sizes_give_the_same_shop(shop: Path, tmp_path: Path) -> None:
    write_shop(6_000, 300, tmp_path)
    for name in ("items", "events"):
        again, first = (pl.read_parquet(one / f"{name}.parquet") for one in (tmp_path, shop))
        assert again.equals(first)
    assert np.unique(first["user_id"]).size > 100
