from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.synthetic import Shop

Ask = Callable[..., Any]
Say = Callable[..., str]


def test_uncertain_photos_are_written_labelled_and_added_to_the_photos_table(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, ask: Ask, say: Say
) -> None:
    review, photos = tmp_path / "review.csv", tmp_path / "photos.parquet"
    folder = tiny_shop.images / "photos"
    root = ("--images-root", tiny_shop.images)
    asked = ask("review", "ask", tiny_bundle, folder, "--out", review, *root)
    table = pl.read_csv(review)
    assert asked["photos"] == len(list(folder.iterdir()))
    assert asked["uncertain"] == len(table) > 0
    table = table.with_columns(
        item_id=pl.when(pl.int_range(pl.len()) < 2).then("candidate_1").otherwise(None)
    )
    table.write_csv(review)
    said = say("review", "learn", tiny_bundle, review, photos, *root)
    assert "2 photos added, 0 given another item" in said
    assert pl.read_parquet(photos)["image"].to_list() == table["image"].to_list()[:2]


def test_a_label_outside_the_catalogue_and_an_unknown_suffix_are_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    (tmp_path / "review.csv").write_text("image,item_id\na.png,nothing\n")
    said = refusal("review", "learn", tiny_bundle, tmp_path / "review.csv", tmp_path / "p.parquet")
    assert "must be in the catalogue, got 'nothing'" in said
    said = refusal("review", "ask", tiny_bundle, tmp_path, "--out", tmp_path / "review.txt")
    assert "out must end in .parquet or .csv" in said
