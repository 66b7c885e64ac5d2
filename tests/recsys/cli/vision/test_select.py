from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.data.synthetic import Shop
from recsys.training.samples import PictureSamples
from vision.labelling.selection import Pool, Strategy, select
from vision.tower import VisionTower

Ask = Callable[..., Any]
Say = Callable[..., str]
Write = Callable[..., Path]
Read = Callable[[Path], PictureSamples]
N_BARE = 6


@pytest.fixture
def bare(tiny_shop: Shop) -> pl.DataFrame:
    """The shop's photos, with item and category removed from the first few of train."""
    photos = pl.read_parquet(tiny_shop.photos)
    train = pl.col("split") == "train"
    known = ~(train & (train.cum_sum() <= N_BARE))
    return photos.with_columns(
        pl.when(known).then(pl.col(name)).alias(name) for name in ("item_id", "category")
    )


@pytest.mark.parametrize("strategy", ["entropy", "margin", "core_set", "random"])
def test_select_writes_the_photos_that_the_library_chooses(
    strategy: Strategy,
    bare: pl.DataFrame,
    tiny_bundle: Path,
    tiny_shop: Shop,
    tower: VisionTower,
    write: Write,
    pictures: Read,
    tmp_path: Path,
    ask: Ask,
) -> None:
    config, out = write(photos=bare), tmp_path / "new" / "next.parquet"
    options = ("--strategy", strategy, "--target", "category_1", "--seed", 7)
    answer = ask("vision", "select", tiny_bundle, config, "-k", 3, "--out", out, *options)
    pool = [tiny_shop.images / image for image in bare.filter(pl.col("item_id").is_null())["image"]]
    choice = Pool(pool, labelled=pictures(config).train.images)
    wanted = select(tower, choice, 3, strategy=strategy, target="category_1", seed=7)
    assert_frame_equal(pl.read_parquet(out), wanted.table)
    assert answer == {"rows": 3, "unlabelled": N_BARE, "file": str(out)}


def test_select_uses_margin_and_the_finest_category_by_default_and_can_write_csv(
    bare: pl.DataFrame,
    tiny_bundle: Path,
    tower: VisionTower,
    write: Write,
    pictures: Read,
    tmp_path: Path,
    say: Say,
) -> None:
    config, out = write(photos=bare), tmp_path / "next.csv"
    said = say("vision", "select", tiny_bundle, config, "--k", 2, "--out", out)
    pool = pictures(config).unlabelled
    wanted = select(tower, Pool(pool), 2, strategy="margin", target="category_3", seed=0).table
    assert_frame_equal(pl.read_csv(out), wanted, check_dtypes=False)
    assert f"2 of {N_BARE} photos without a label in" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--k", 7), f"k must be at most {N_BARE} (pictures in the pool), got 7"),
        (("--k", 0), "k must be at least 1, got 0"),
        (("--out", "next.xlsx"), "out must end in .parquet or .csv, got 'next.xlsx'"),
        (
            ("--strategy", "luck"),
            "strategy must be one of entropy, margin, random, core_set, got 'luck'",
        ),
        (
            ("--target", "kind"),
            "target must be one of category_1, category_2, category_3, attribute_accent, "
            "attribute_colour, attribute_material, attribute_pattern, item, got 'kind'",
        ),
    ],
)
def test_select_refuses_invalid_options_with_what_is_allowed(
    options: tuple[str, object],
    message: str,
    bare: pl.DataFrame,
    tiny_bundle: Path,
    write: Write,
    tmp_path: Path,
    refusal: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("vision", "select", tiny_bundle, write(photos=bare), "--k", 2, "--out", "next.csv")
    assert refusal(*command, *options) == message
    assert not [*tmp_path.glob("next.*")]


def test_select_refuses_a_shop_without_unlabelled_photos(
    tiny_bundle: Path, pictureless: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    for config in (write(), pictureless):
        said = refusal(
            "vision", "select", tiny_bundle, config, "--k", 3, "--out", tmp_path / "next.csv"
        )
        assert said == f"{config} must have photos of train without item_id and category, got none"
