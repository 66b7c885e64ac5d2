import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.scale import MEASURED, START, report, write_shop
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


def test_a_stage_took_what_passed_until_the_next_and_ours_is_compared_with_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "6000x300"
    folder.mkdir()
    spent = [("check", 1.0, 2.0, 0.5), ("text", 4.0, 3.0, 0.75), ("end", 9.0, 7.0, 1.5)]
    stages = [dict(zip(("stage", "wall", "cpu", "peak_gb"), one, strict=True)) for one in spent]
    ndcg = {"vitrine": 0.3, "popularity": 0.1, "EASE": 0.2}
    found = {"stages": stages, "ndcg@10": ndcg, "bundle_gb": 0.01, "left_out": []}
    (folder / MEASURED).write_text(json.dumps(found))
    noted: dict[str, float] = {}

    def note(topic: str, name: str, value: float, unit: str, command: str) -> None:
        assert (topic, command) == ("scale", "python -m benchmarks.scale 6000 300")
        noted[name.removeprefix("scale.events_6000.")] = value

    monkeypatch.setattr("benchmarks.scale.record", note)
    report(folder, "events_6000")
    assert noted == {
        "check.seconds": 3.0,
        "text.seconds": 5.0,
        "seconds": 8.0,
        "cpu_seconds": 5.0,
        "peak_gb": 1.5,
        "bundle_gb": 0.01,
        "ndcg@10": 0.3,
        "ratio_to_best_baseline": 1.5,
    }
    assert "best baseline EASE 0.200" in capsys.readouterr().out
