import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import FusionConfig
from recsys.models.fusion import build_fusion


def contents(config: FusionConfig) -> Contents:
    torch.manual_seed(0)
    return Contents(
        items=pl.DataFrame({"item_id": ["a", "b"]}),
        item_embeddings=np.eye(2, 8, dtype=np.float32),
        fusion=build_fusion(config, {"text": 4}),
    )


def test_equal_contents_have_one_version_however_they_were_trained(tmp_path: Path) -> None:
    config = FusionConfig(dim=8, hidden=4)
    other = FusionConfig(dim=8, hidden=4, epochs=3, teacher=str(tmp_path / "teacher.parquet"))
    one, two = (write_bundle(contents(each), tmp_path / "bundles") for each in (config, other))
    assert one == two
    assert str(tmp_path) not in (one / "bundle.json").read_text()


def test_a_latest_with_older_items_than_the_one_before_it_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = contents(FusionConfig(dim=8, hidden=4))
    for time_us in (5_000_000, 7_000_000, None):
        write_bundle(replace(plain, items_as_of_us=time_us), tmp_path)
    assert caplog.text == ""
    write_bundle(replace(plain, items_as_of_us=7_000_000), tmp_path)
    older = write_bundle(replace(plain, items_as_of_us=6_000_000), tmp_path)
    assert f"the latest bundle is now {older}" in caplog.text
    assert "as of 1970-01-01 00:00:06+00:00; those of the latest before it" in caplog.text


def test_the_description_holds_what_building_needs_and_no_more(tiny_bundle: Path) -> None:
    description = json.loads((tiny_bundle / "bundle.json").read_text())
    assert set(description["fusion"]) == {"dim", "hidden", "kind", "dropout"}
    assert set(description["rankers"]) <= {"all", "new", "network", "probability"}
    assert set(description["tempo"]) == {"pause_days", "window_days"}
    assert set(description["users"]) == {
        "width",
        "heads",
        "depth",
        "history_length",
        "recent_length",
        "dropout",
    }


def test_a_part_that_was_not_trained_is_absent(tmp_path: Path) -> None:
    bare = replace(contents(FusionConfig(dim=8, hidden=4)), left_out=("ranking: no events",))
    bundle = Bundle(write_bundle(bare, tmp_path))
    assert bundle.parts == frozenset()
    assert bundle.left_out == ("ranking: no events",)
    assert (bundle.target_kinds, bundle.split_us, bundle.as_of_us) == ((), None, None)
    np.testing.assert_array_equal(bundle.item_embeddings, bare.item_embeddings)
