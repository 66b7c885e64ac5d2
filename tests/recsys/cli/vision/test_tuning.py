import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.config import load_config
from recsys.data.synthetic import Shop
from recsys.training.samples import PictureSamples
from vision.tuning.folds import cross_validate, split_folds
from vision.tuning.hyperparameters import SearchPlan, search_hyperparameters

Ask = Callable[..., Any]
Say = Callable[..., str]
Write = Callable[..., Path]
Read = Callable[[Path], PictureSamples]
SEARCH = """
[search.learning_rate]
low = 1e-4
high = 1e-2
log = true
[search.transfer.layer_decay]
choices = [0.8, 1.0]
"""


def test_tune_prints_the_best_trial_and_continues_where_it_stopped(
    write: Write, pictures: Read, tmp_path: Path, ask: Ask, say: Say
) -> None:
    config, out = write(SEARCH), tmp_path / "search"
    answer = ask("vision", "tune", config, "--out", out, "--trials", 2)
    settings, samples = load_config(config), pictures(config)
    assert settings.search is not None
    assert samples.validation is not None
    # Both trials are stored in the study, so nothing is trained again.
    plan = SearchPlan(settings.search, n_trials=2, seed=settings.seed, metric="accuracy/category_3")
    found = search_hyperparameters(
        samples.train, samples.validation, settings.vision, plan, workdir=out, device="cpu"
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


def test_tune_refuses_a_configuration_it_cannot_search(
    tiny_shop: Shop, pictureless: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    command = ("--out", tmp_path / "search")
    config = write()
    said = refusal("vision", "tune", config, *command)
    assert said == f"{config} must name the fields to search, such as [search.learning_rate]"
    said = refusal("vision", "tune", pictureless, *command)
    assert said == f"{pictureless} must have pictures to train on, got none"
    said = refusal("vision", "tune", write(SEARCH), *command, "--trials", 0)
    assert said == "n_trials must be at least 1, got 0"
    said = refusal("vision", "tune", write("[search.sise]\nchoices = [32]\n"), *command)
    assert "unknown field sise, did you mean size?" in said
    photos = pl.read_parquet(tiny_shop.photos).filter(pl.col("split") != "val")
    config = write(SEARCH, photos=photos)
    said = refusal("vision", "tune", config, *command)
    assert said == f"{config} must have photos whose split is val, got none"
    assert not (tmp_path / "search").exists()


def test_tune_refuses_an_unknown_metric_before_it_trains(
    write: Write, tmp_path: Path, refusal: Say
) -> None:
    config = write(SEARCH)
    said = refusal("vision", "tune", config, "--out", tmp_path / "search", "--metric", "charm")
    assert said.startswith("metric must be one of accuracy/category_1, accuracy/category_2")
    assert said.endswith("got 'charm'")
    assert not (tmp_path / "search").exists()


def test_without_optuna_the_error_names_the_extra_to_install(
    write: Write, tmp_path: Path, refusal: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = refusal("vision", "tune", write(SEARCH), "--out", tmp_path / "search")
    assert said.endswith("pip install 'vitrine-recsys[search]'")


def test_folds_prints_the_summary_of_the_cross_validation(
    write: Write, pictures: Read, tmp_path: Path, ask: Ask, say: Say
) -> None:
    config, out = write(), tmp_path / "folds"
    answer = ask("vision", "folds", config, "--out", out, "--count", 2)
    # Both folds are stored in the folder, so nothing is trained again.
    train = pictures(config).train
    split = split_folds(train, 2, seed=0, target="category_3")
    wanted = cross_validate(
        train, load_config(config).vision, split, workdir=out, seed=0, device="cpu"
    )
    assert answer == {"mean": wanted.mean, "std": wanted.std}
    shown = say("vision", "folds", config, "--out", out, "--count", 2)
    name = "accuracy/category_1"
    assert f"{name} │ {wanted.mean[name]:.3f} │ {wanted.std[name]:.3f} │" in shown


def test_folds_refuses_what_it_cannot_split(
    pictureless: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    command = ("--out", tmp_path / "folds")
    said = refusal("vision", "folds", write(), *command, "--count", 1)
    assert said.startswith("n_folds must be between 2 and")
    said = refusal("vision", "folds", write(), *command, "--target", "kind")
    assert said.startswith("target must be one of category_1")
    said = refusal("vision", "folds", pictureless, *command)
    assert said == f"{pictureless} must have pictures to train on, got none"
