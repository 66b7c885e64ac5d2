"""Commands of the vision tower answer as the functions they call, and say what is missing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from recsys.bundle import Bundle
from recsys.config import TrainConfig
from recsys.data.synthetic import Shop
from recsys.pipeline import load_tables
from recsys.training.towers import PictureSamples, label_pictures, picture_samples
from vision.deploy.onnx_tower import OnnxTower
from vision.labelling.selection import select
from vision.report import evaluate_tower, read_report

Ask = Callable[..., Any]
Say = Callable[..., str]
TINY = """
[vision]
backbone = "test_resnet"
size = 32
dim = 8
epochs = 1
"""


@pytest.fixture(scope="module")
def samples(tiny_config: TrainConfig) -> PictureSamples:
    dataset = load_tables(tiny_config)
    return picture_samples(dataset, label_pictures(dataset))


@pytest.fixture
def write(tiny_shop: Shop, tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of configurations over the tiny shop's pictures."""

    def run(vision: str = TINY, *, photos: pl.DataFrame | None = None) -> Path:
        table = pl.read_parquet(tiny_shop.photos) if photos is None else photos
        table.write_parquet(tmp_path / "photos.parquet")
        path = tmp_path / "shop.toml"
        items = tiny_shop.folder / "items.parquet"
        path.write_text(
            f'[data]\nitems = "{items}"\nphotos = "photos.parquet"\n'
            f'images_root = "{tiny_shop.images}"\n{vision}'
        )
        return path

    return run


@pytest.fixture
def photo(tiny_shop: Shop) -> Path:
    return tiny_shop.images / str(pl.read_parquet(tiny_shop.photos)["image"][0])


def without_labels(shop: Shop, count: int) -> pl.DataFrame:
    """Return the photos, the first ``count`` of train without item and category."""
    photos = pl.read_parquet(shop.photos)
    train = pl.col("split") == "train"
    bare = train & (train.cum_sum() <= count)
    columns = [name for name in ("item_id", "category") if name in photos.columns]
    return photos.with_columns(pl.when(~bare).then(pl.col(name)).alias(name) for name in columns)


def test_report_writes_what_evaluate_tower_measures(
    tiny_bundle: Path, samples: PictureSamples, write: Callable[..., Path], tmp_path: Path, ask: Ask
) -> None:
    answer = ask("vision", "report", tiny_bundle, write(), "--out", tmp_path, "--no-robustness")
    assert samples.test is not None
    tower = Bundle(tiny_bundle).vision
    wanted = evaluate_tower(tower, samples.test, calibration=samples.validation, robustness=False)
    written = read_report(tmp_path)
    assert written.targets == wanted.targets
    assert Path(answer["report"]).read_text().lstrip().startswith("<!doctype html>")


def test_report_shows_the_tower_before_fine_tuning_beside_it(
    tiny_bundle: Path, write: Callable[..., Path], tmp_path: Path, say: Say, refusal: Say
) -> None:
    options = ("--no-robustness", "--before")
    pretrained = Bundle(tiny_bundle).path / "vision"
    config = write(f'[vision]\nbackbone = "resnet10t"\nsize = 32\npretrained = "{pretrained}"\n')
    said = say("vision", "report", tiny_bundle, config, "--out", tmp_path, *options)
    assert "category_3" in said
    assert "before" in (tmp_path / "vision.html").read_text().lower()
    random = refusal("vision", "report", tiny_bundle, write(), "--out", tmp_path, *options)
    assert "needs a pretrained backbone" in random


def test_explain_writes_the_picture_the_tower_saw(
    tiny_bundle: Path, photo: Path, tmp_path: Path, say: Say
) -> None:
    out = tmp_path / "heat.png"
    said = say("vision", "explain", tiny_bundle, photo, "--out", out, "--target", "category_1")
    tower = Bundle(tiny_bundle).vision
    probabilities = tower.predict([photo])["category_1"][0]
    assert tower.classes["category_1"][int(probabilities.argmax())] in said
    with Image.open(out) as picture:
        assert picture.size == (tower.preprocess.size, tower.preprocess.size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "kind"), "target must be one of"),
        (("--class", "Dragon"), "class_name must be one of"),
        (("--method", "magic"), "method must be one of"),
    ],
)
def test_explain_names_what_it_does_not_know(
    options: tuple[str, str], message: str, tiny_bundle: Path, photo: Path, refusal: Say
) -> None:
    said = refusal("vision", "explain", tiny_bundle, photo, "--out", "x.png", *options)
    assert message in said
    assert options[1] in said


def test_a_missing_library_is_named_with_its_extra(
    tiny_bundle: Path, photo: Path, refusal: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    said = refusal("vision", "explain", tiny_bundle, photo, "--out", "x.png", "--method", "lime")
    assert "pip install 'vitrine-recsys[explain]'" in said


def test_select_writes_the_table_of_the_function(
    tiny_bundle: Path, tiny_shop: Shop, write: Callable[..., Path], tmp_path: Path, say: Say
) -> None:
    config = write(photos=without_labels(tiny_shop, 6))
    out = tmp_path / "next.csv"
    say("vision", "select", tiny_bundle, config, "--k", 3, "--out", out, "--strategy", "entropy")
    table = pl.read_csv(out)
    photos = without_labels(tiny_shop, 6).filter(pl.col("item_id").is_null(), split="train")
    pool = [tiny_shop.images / image for image in photos["image"]]
    wanted = select(Bundle(tiny_bundle).vision, pool, 3, strategy="entropy", seed=0).table
    assert table["image"].to_list() == wanted["image"].to_list()
    assert table["score"].to_list() == pytest.approx(wanted["score"].to_list())


def test_select_says_what_is_missing(
    tiny_bundle: Path, tiny_shop: Shop, write: Callable[..., Path], tmp_path: Path, refusal: Say
) -> None:
    command = ("vision", "select", tiny_bundle)
    out = ("--out", tmp_path / "next.csv")
    assert "without a label, got none" in refusal(*command, write(), "--k", 3, *out)
    config = write(photos=without_labels(tiny_shop, 4))
    assert "got 5" in refusal(*command, config, "--k", 5, *out)
    assert "must end in .parquet or .csv" in refusal(
        *command, config, "--k", 2, "--out", tmp_path / "next.xlsx"
    )
    unknown = refusal(*command, config, "--k", 2, *out, "--strategy", "luck")
    assert "luck" in unknown


def test_tune_and_folds_train_what_the_configuration_says(
    write: Callable[..., Path], tmp_path: Path, ask: Ask
) -> None:
    searched = "[search.learning_rate]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n"
    config = write(TINY + searched)
    found = ask("vision", "tune", config, "--out", tmp_path / "search", "--trials", 2)
    assert 0 <= found["value"] <= 1
    assert 1e-4 <= found["vision"]["learning_rate"] <= 1e-2
    assert len(pl.read_parquet(tmp_path / "search" / "trials.parquet")) == 2
    folds = ask("vision", "folds", config, "--out", tmp_path / "folds", "--count", 2)
    assert 0 <= folds["mean"]["accuracy/category_1"] <= 1


def test_tune_says_what_is_missing(
    tiny_shop: Shop, write: Callable[..., Path], tmp_path: Path, refusal: Say
) -> None:
    command = ("--out", tmp_path / "search")
    assert "must say what to search" in refusal("vision", "tune", write(), *command)
    photos = pl.read_parquet(tiny_shop.photos).filter(pl.col("split") != "val")
    config = write(TINY + "[search.dropout]\nchoices = [0.0, 0.1]\n", photos=photos)
    assert "must have a val split" in refusal("vision", "tune", config, *command)


def test_exported_towers_answer_as_the_bundle_s(
    tiny_bundle: Path, write: Callable[..., Path], photo: Path, tmp_path: Path, say: Say
) -> None:
    said = say("vision", "export", tiny_bundle, "--out", tmp_path, "--config", write())
    assert "model.int8.onnx, model.onnx" in said
    wanted = Bundle(tiny_bundle).vision.embed([photo])
    np.testing.assert_allclose(OnnxTower(tmp_path).embed([photo]), wanted, atol=1e-4)
    assert (OnnxTower(tmp_path, int8=True).embed([photo]) @ wanted.T).item() > 0.9


def test_a_preview_is_a_picture_and_trains_nothing(
    write: Callable[..., Path], tmp_path: Path, say: Say
) -> None:
    out = tmp_path / "runs"
    said = say("train", write(), "--out", out, "--preview", tmp_path / "sheet.png")
    assert "photo augmentation" in said
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 32
    assert not out.exists()
