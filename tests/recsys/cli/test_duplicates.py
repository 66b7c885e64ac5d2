from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.curation.duplicates import find_duplicates
from recsys.data.synthetic import Shop

Ask = Callable[..., Any]
Say = Callable[..., str]


@pytest.mark.parametrize("ending", ["parquet", "json", "html"])
def test_the_report_has_the_groups_that_the_library_finds(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, ask: Ask, ending: str
) -> None:
    out = tmp_path / f"report.{ending}"
    options = ["--out", out, "--images-root", tiny_shop.images, "--threshold", 0.9]
    answer = ask("duplicates", tiny_bundle, *options)
    bundle = Bundle(tiny_bundle)
    wanted = find_duplicates(
        bundle.items, bundle.item_embeddings, images_root=tiny_shop.images, threshold=0.9
    )
    assert len(wanted) > 0
    assert answer == {
        "items": len(wanted),
        "groups": wanted["group"].n_unique(),
        "file": str(out),
    }
    if ending == "parquet":
        assert pl.read_parquet(out).equals(wanted)


def test_the_number_of_groups_is_printed(tiny_bundle: Path, tmp_path: Path, say: Say) -> None:
    shown = say("duplicates", tiny_bundle, "--out", tmp_path / "report.html", "--threshold", 0.9)
    assert "groups in" in shown
    assert (tmp_path / "report.html").exists()


def test_a_folder_without_the_pictures_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    report = tmp_path / "report.json"
    message = refusal("duplicates", tiny_bundle, "--images-root", tmp_path, "--out", report)
    assert message.startswith(f"images_root {tmp_path} must have the items' pictures, got none of")


def test_a_report_with_an_unknown_suffix_is_refused(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    message = refusal("duplicates", tiny_bundle, "--out", tmp_path / "report.xlsx")
    assert message.startswith("out must end in .parquet, .json, .html, got")
