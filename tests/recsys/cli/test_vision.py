"""Commands of the vision tower answer as the functions they call, and say what is missing."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from recsys.bundle import Bundle
from recsys.cli.app import app
from recsys.config import load_config
from recsys.data.synthetic import Shop
from recsys.pipeline import Run, load_tables
from recsys.training.towers import PictureSamples, label_pictures, picture_samples
from vision.deploy.onnx_tower import OnnxTower
from vision.explain import Method, explain, overlay
from vision.finetune import build_tower
from vision.labelling.class_means import with_class_means
from vision.labelling.selection import Strategy, select
from vision.report import evaluate_tower, read_report, write_report
from vision.report.results import TowerReport
from vision.tower import VisionTower
from vision.tuning.folds import cross_validate
from vision.tuning.search import search

Ask = Callable[..., Any]
Say = Callable[..., str]
Write = Callable[..., Path]
TINY = """
[vision]
backbone = "test_resnet"
size = 32
dim = 8
epochs = 1
"""
SEARCH = """
[search.learning_rate]
low = 1e-4
high = 1e-2
log = true
[search.transfer.layer_decay]
choices = [0.8, 1.0]
"""
N_BARE = 6


@pytest.fixture(scope="module")
def tower(tiny_bundle: Path) -> VisionTower:
    return Bundle(tiny_bundle).vision


@pytest.fixture
def photo(tiny_shop: Shop) -> Path:
    return tiny_shop.images / str(pl.read_parquet(tiny_shop.photos)["image"][0])


@pytest.fixture
def write(tiny_shop: Shop, tmp_path: Path) -> Write:
    """Return a writer of configurations over the tiny shop's items and these photos."""

    def run(tables: str = TINY, *, photos: pl.DataFrame | None = None) -> Path:
        table = pl.read_parquet(tiny_shop.photos) if photos is None else photos
        table.write_parquet(tmp_path / "photos.parquet")
        path = tmp_path / "shop.toml"
        path.write_text(
            f'device = "cpu"\n[data]\nitems = "{tiny_shop.items}"\n'
            f'photos = "photos.parquet"\nimages_root = "{tiny_shop.images}"\n{tables}'
        )
        return path

    return run


@pytest.fixture
def bare(tiny_shop: Shop) -> pl.DataFrame:
    """The shop's photos, the first few of train without item and category."""
    photos = pl.read_parquet(tiny_shop.photos)
    train = pl.col("split") == "train"
    known = ~(train & (train.cum_sum() <= N_BARE))
    return photos.with_columns(
        pl.when(known).then(pl.col(name)).alias(name) for name in ("item_id", "category")
    )


@pytest.fixture
def pictureless(tmp_path: Path) -> Path:
    """The configuration of a shop that has titles only."""
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["mug", "lamp"]})
    items.write_csv(tmp_path / "items.csv")
    path = tmp_path / "pictureless.toml"
    path.write_text(f'[data]\nitems = "items.csv"\n{TINY}{SEARCH}')
    return path


def read(config: Path) -> PictureSamples:
    dataset = load_tables(load_config(config))
    return picture_samples(dataset, label_pictures(dataset))


def figures(report: TowerReport) -> dict[str, Any]:
    """Return a report's headline as the command must print it."""
    return {
        name: {
            "photos": one.n_pictures,
            "accuracy": asdict(one.accuracy),
            "macro_f1": asdict(one.macro_f1),
        }
        for name, one in report.targets.items()
    }


def test_every_command_prints_json_too() -> None:
    for command in ("report", "explain", "select", "tune", "folds", "export"):
        assert "--json" in CliRunner().invoke(app, ["vision", command, "--help"]).stdout


def test_report_writes_what_evaluate_tower_measures(
    tiny_bundle: Path, tower: VisionTower, write: Write, tmp_path: Path, ask: Ask
) -> None:
    config, out = write(), tmp_path / "report"
    answer = ask("vision", "report", tiny_bundle, config, "--out", out)
    samples = read(config)
    assert samples.test is not None
    wanted = evaluate_tower(tower, samples.test, calibration=samples.validation)
    assert read_report(out) == wanted
    assert answer == {
        "report": str(out / "vision.html"),
        "targets": figures(wanted),
        "before": None,
    }


def test_report_shows_the_tower_before_fine_tuning_beside_it(
    tiny_bundle: Path, tower: VisionTower, write: Write, tmp_path: Path, ask: Ask, say: Say
) -> None:
    pretrained = Bundle(tiny_bundle).path / "vision"
    config = write(f'[vision]\nbackbone = "resnet10t"\nsize = 32\npretrained = "{pretrained}"\n')
    command = ("vision", "report", tiny_bundle, config, "--out", tmp_path / "a")
    options = ("--no-robustness", "--before")
    answer = ask(*command, *options)
    samples = read(config)
    assert samples.test is not None
    untrained = build_tower(samples.train.classes, load_config(config).vision)
    after, before = (
        evaluate_tower(one, samples.test, calibration=samples.validation, robustness=False)
        for one in (tower, with_class_means(untrained, samples.train))
    )
    assert (answer["targets"], answer["before"]) == (figures(after), figures(before))
    page = write_report(after, tmp_path / "b", before=before)
    assert Path(answer["report"]).read_text() == page.read_text()
    shown = say(*command, *options)
    first, _, second = shown.partition("vision tower, test photos")
    for table, one in ((first, before), (second, after)):
        assert f"category_1 │ 28 │ {one.targets['category_1'].accuracy.mean:.3f} [" in table
    assert shown.endswith("vision.html")


def test_report_says_what_is_missing(
    tiny_bundle: Path,
    tiny_shop: Shop,
    pictureless: Path,
    write: Write,
    tmp_path: Path,
    refusal: Say,
) -> None:
    out = tmp_path / "report"
    photos = pl.read_parquet(tiny_shop.photos).filter(pl.col("split") != "test")
    for config in (write(photos=photos), pictureless):
        said = refusal("vision", "report", tiny_bundle, config, "--out", out)
        assert said == f"{config} must have photos whose split is test, got none"
    said = refusal("vision", "report", tiny_bundle, write(), "--out", out, "--before")
    assert said.startswith("--before needs a pretrained backbone, got pretrained = false")
    assert not out.exists()


def test_a_report_on_another_shop_is_refused(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, write: Write, refusal: Say
) -> None:
    config = write()
    pl.read_parquet(tiny_shop.items).head(50).write_parquet(tmp_path / "items.parquet")
    config.write_text(config.read_text().replace(str(tiny_shop.items), "items.parquet"))
    said = refusal("vision", "report", tiny_bundle, config, "--out", tmp_path / "report")
    assert said.startswith("samples must have the tower's classes of each target")


@pytest.mark.parametrize("method", ["grad_cam", "lime"])
def test_explain_paints_what_the_function_finds(
    method: Method, tiny_bundle: Path, tower: VisionTower, photo: Path, tmp_path: Path, ask: Ask
) -> None:
    out = tmp_path / "new" / "heat.png"
    options = ("--target", "category_1", "--method", method)
    answer = ask("vision", "explain", tiny_bundle, photo, "--out", out, *options)
    wanted = explain(tower, photo, target="category_1", method=method)
    assert answer == {
        "target": "category_1",
        "class": wanted.class_name,
        "probability": pytest.approx(wanted.probability),
        "file": str(out),
    }
    with Image.open(out) as picture:
        assert (picture.format, picture.size) == ("PNG", (tower.preprocess.size,) * 2)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(overlay(wanted)))


def test_explain_takes_the_class_it_is_asked_about_or_the_predicted_one(
    tiny_bundle: Path, tower: VisionTower, photo: Path, tmp_path: Path, say: Say
) -> None:
    command = ("vision", "explain", tiny_bundle, photo, "--out", tmp_path / "heat.png")
    probabilities = tower.predict([photo])["category_3"][0]
    names = tower.classes["category_3"]
    predicted, least = names[probabilities.argmax()], names[probabilities.argmin()]
    for options, name in (((), predicted), (("--class", least), least)):
        said = say(*command, *options)
        assert f"category_3: {name}, probability {probabilities[names.index(name)]:.3f};" in said


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--target", "kind", "target must be one of category_1, category_2"),
        ("--class", "Dragon", "class_name must be one of Fashion"),
        ("--method", "magic", "method must be one of grad_cam, lime, shap, got 'magic'"),
        ("--out", "heat.jpg", "out must end in .png, got 'heat.jpg'"),
    ],
)
def test_explain_names_what_it_does_not_know(
    option: str,
    value: str,
    message: str,
    tiny_bundle: Path,
    photo: Path,
    tmp_path: Path,
    refusal: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal("vision", "explain", tiny_bundle, photo, "--out", "heat.png", option, value)
    assert said.startswith(message)
    assert said.endswith(f"got {value!r}")
    assert "\n" not in said
    assert not [*tmp_path.iterdir()]


def test_a_photo_that_is_no_picture_is_not_explained(
    tiny_bundle: Path, tmp_path: Path, refusal: Say
) -> None:
    photo, out = tmp_path / "photo.jpg", tmp_path / "heat.png"
    command = ("vision", "explain", tiny_bundle, photo, "--out", out)
    assert f"image '{photo}' cannot be found" in refusal(*command)
    photo.write_bytes(b"not a picture")
    said = refusal(*command)
    assert said.startswith(f"{photo}: image cannot be decoded: got 13 bytes")
    assert not out.exists()


@pytest.mark.parametrize(
    ("library", "command", "extra"),
    [
        ("captum", "explain {bundle} {photo} --out {out}.png --method lime", "explain"),
        ("captum", "explain {bundle} {photo} --out {out}.png --method shap", "explain"),
        ("optuna", "tune {config} --out {out}", "search"),
        ("onnxscript", "export {bundle} --out {out}", "onnx"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    library: str,
    command: str,
    extra: str,
    tiny_bundle: Path,
    photo: Path,
    write: Write,
    tmp_path: Path,
    refusal: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # None is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, library, None)
    named = {
        "bundle": tiny_bundle,
        "photo": photo,
        "config": write(TINY + SEARCH),
        "out": tmp_path / "out",
    }
    said = refusal("vision", *(word.format(**named) for word in command.split()))
    assert said.endswith(f"pip install 'vitrine-recsys[{extra}]'")


@pytest.mark.parametrize("strategy", ["entropy", "margin", "core_set", "random"])
def test_select_writes_the_table_of_the_function(
    strategy: Strategy,
    bare: pl.DataFrame,
    tiny_bundle: Path,
    tiny_shop: Shop,
    tower: VisionTower,
    write: Write,
    tmp_path: Path,
    ask: Ask,
) -> None:
    config, out = write(photos=bare), tmp_path / "new" / "next.parquet"
    options = ("--strategy", strategy, "--target", "category_1", "--seed", 7)
    answer = ask("vision", "select", tiny_bundle, config, "-k", 3, "--out", out, *options)
    pool = [tiny_shop.images / image for image in bare.filter(pl.col("item_id").is_null())["image"]]
    wanted = select(
        tower,
        pool,
        3,
        strategy=strategy,
        labelled=read(config).train.images,
        target="category_1",
        seed=7,
    )
    assert_frame_equal(pl.read_parquet(out), wanted.table)
    assert answer == {"rows": 3, "unlabelled": N_BARE, "file": str(out)}


def test_select_asks_by_margin_in_the_finest_category_and_writes_csv_too(
    bare: pl.DataFrame,
    tiny_bundle: Path,
    tower: VisionTower,
    write: Write,
    tmp_path: Path,
    say: Say,
) -> None:
    config, out = write(photos=bare), tmp_path / "next.csv"
    said = say("vision", "select", tiny_bundle, config, "--k", 2, "--out", out)
    pool = read(config).unlabelled
    wanted = select(tower, pool, 2, strategy="margin", target="category_3", seed=0).table
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
            "target must be one of category_1, category_2, category_3, attribute_colour, "
            "attribute_material, item, got 'kind'",
        ),
    ],
)
def test_select_names_what_it_cannot_do(
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


def test_select_wants_photos_without_a_label(
    tiny_bundle: Path, pictureless: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    for config in (write(), pictureless):
        said = refusal(
            "vision", "select", tiny_bundle, config, "--k", 3, "--out", tmp_path / "next.csv"
        )
        assert said == f"{config} must have photos of train without item_id and category, got none"


def test_tune_prints_what_the_search_found_and_goes_on_where_it_stopped(
    write: Write, tmp_path: Path, ask: Ask, say: Say
) -> None:
    config, out = write(TINY + SEARCH), tmp_path / "search"
    answer = ask("vision", "tune", config, "--out", out, "--trials", 2)
    settings, samples = load_config(config), read(config)
    assert settings.search is not None
    assert samples.validation is not None
    # Both trials are in the study, so that nothing is trained again.
    found = search(
        samples.train,
        samples.validation,
        settings.vision,
        settings.search,
        n_trials=2,
        workdir=out,
        seed=settings.seed,
        metric="accuracy/category_3",
        device="cpu",
    )
    best = found.trials.sort("value", descending=True, maintain_order=True)
    assert answer == {
        "metric": "accuracy/category_3",
        "value": best["value"][0],
        "vision": {
            "learning_rate": found.best.learning_rate,
            "transfer.layer_decay": found.best.transfer.layer_decay,
        },
        "trials": str(out / "trials.parquet"),
    }
    assert answer["vision"]["learning_rate"] == best["learning_rate"][0]
    assert_frame_equal(pl.read_parquet(out / "trials.parquet"), found.trials)
    shown = say("vision", "tune", config, "--out", out, "--trials", 2)
    assert "Epoch" not in shown
    assert f"learning_rate │ {found.best.learning_rate:.4g} │" in shown
    assert f"accuracy/category_3 {found.value:.3f} on val photos" in shown


def test_tune_says_what_is_missing(
    tiny_shop: Shop, pictureless: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    command = ("--out", tmp_path / "search")
    config = write()
    said = refusal("vision", "tune", config, *command)
    assert said == f"{config} must say what to search, such as [search.learning_rate]"
    said = refusal("vision", "tune", pictureless, *command)
    assert said == f"{pictureless} must have pictures to train on, got none"
    said = refusal("vision", "tune", write(TINY + SEARCH), *command, "--trials", 0)
    assert said == "n_trials must be at least 1, got 0"
    said = refusal("vision", "tune", write(f"{TINY}[search.sise]\nchoices = [32]\n"), *command)
    assert "unknown field sise, did you mean size?" in said
    photos = pl.read_parquet(tiny_shop.photos).filter(pl.col("split") != "val")
    config = write(TINY + SEARCH, photos=photos)
    said = refusal("vision", "tune", config, *command)
    assert said == f"{config} must have photos whose split is val, got none"
    assert not (tmp_path / "search").exists()


def test_tune_looks_at_the_metric_it_is_told(write: Write, tmp_path: Path, refusal: Say) -> None:
    config = write(TINY + SEARCH)
    said = refusal("vision", "tune", config, "--out", tmp_path / "search", "--metric", "charm")
    assert said.startswith("metric must be one of accuracy/category_1, accuracy/category_2")
    assert said.endswith("got 'charm'")


def test_folds_prints_the_summary_of_the_cross_validation(
    write: Write, tmp_path: Path, ask: Ask, say: Say
) -> None:
    config, out = write(), tmp_path / "folds"
    answer = ask("vision", "folds", config, "--out", out, "--count", 2)
    # Both folds are in the folder, so that nothing is trained again.
    wanted = cross_validate(
        read(config).train,
        load_config(config).vision,
        2,
        workdir=out,
        seed=0,
        target="category_3",
        device="cpu",
    )
    assert answer == {"mean": wanted.mean, "std": wanted.std}
    shown = say("vision", "folds", config, "--out", out, "--count", 2)
    name = "accuracy/category_1"
    assert f"{name} │ {wanted.mean[name]:.3f} │ {wanted.std[name]:.3f} │" in shown


def test_folds_names_what_it_cannot_split(
    pictureless: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    command = ("--out", tmp_path / "folds")
    said = refusal("vision", "folds", write(), *command, "--count", 1)
    assert said.startswith("n_folds must be between 2 and")
    said = refusal("vision", "folds", write(), *command, "--target", "kind")
    assert said.startswith("target must be one of category_1")
    said = refusal("vision", "folds", pictureless, *command)
    assert said == f"{pictureless} must have pictures to train on, got none"


def test_exported_towers_answer_as_the_bundle_s(
    tiny_bundle: Path,
    tower: VisionTower,
    photo: Path,
    write: Write,
    tmp_path: Path,
    ask: Ask,
    say: Say,
) -> None:
    answer = ask("vision", "export", tiny_bundle, "--out", tmp_path / "8", "--config", write())
    files = [tmp_path / "8" / name for name in ("model.onnx", "model.int8.onnx")]
    assert answer == {"files": [str(file) for file in files]}
    exported, wanted = OnnxTower(tmp_path / "8"), tower.embed([photo])
    np.testing.assert_allclose(exported.embed([photo]), wanted, atol=1e-4)
    for name, probabilities in tower.predict([photo]).items():
        np.testing.assert_allclose(exported.predict([photo])[name], probabilities, atol=1e-4)
    assert (OnnxTower(tmp_path / "8", int8=True).embed([photo]) @ wanted.T).item() > 0.9
    assert "model.onnx in" in say("vision", "export", tiny_bundle, "--out", tmp_path / "32")
    assert sorted(file.name for file in (tmp_path / "32").iterdir()) == [
        "config.json",
        "model.onnx",
    ]


def test_an_int8_export_wants_pictures(
    tiny_bundle: Path, pictureless: Path, tmp_path: Path, refusal: Say
) -> None:
    out = tmp_path / "onnx"
    said = refusal("vision", "export", tiny_bundle, "--out", out, "--config", pictureless)
    assert said == f"{pictureless} must have pictures to train on, got none"
    assert not out.exists()


def test_a_bundle_without_a_vision_tower_is_refused_by_every_command(
    tiny_run: Run, photo: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    bundle, config = tiny_run.ablations["text-only"], write()
    for command in (
        ("report", bundle, config, "--out", tmp_path / "report"),
        ("explain", bundle, photo, "--out", tmp_path / "heat.png"),
        ("select", bundle, config, "--k", 1, "--out", tmp_path / "next.csv"),
        ("export", bundle, "--out", tmp_path / "onnx"),
    ):
        assert "has no 'vision' part" in refusal("vision", *command)
