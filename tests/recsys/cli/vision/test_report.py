import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.data.synthetic import Shop
from recsys.training.samples import PictureSamples
from vision.finetuning import build_tower
from vision.labelling.class_means import with_class_means
from vision.report import EvaluationOptions, evaluate_tower, read_report, write_report
from vision.report.results import TowerReport
from vision.tower import VisionTower

Ask = Callable[..., Any]
Say = Callable[..., str]
Write = Callable[..., Path]
Read = Callable[[Path], PictureSamples]


def figures(report: TowerReport) -> dict[str, Any]:
    """Return the JSON value that the command must print for a report."""
    return {
        name: {
            "photos": one.n_pictures,
            "accuracy": asdict(one.accuracy),
            "macro_f1": asdict(one.macro_f1),
        }
        for name, one in report.targets.items()
    }


def test_report_writes_what_evaluate_tower_measures(
    tiny_bundle: Path,
    tower: VisionTower,
    write: Write,
    pictures: Read,
    tmp_path: Path,
    ask: Ask,
) -> None:
    config, out = write(), tmp_path / "report"
    answer = ask("vision", "report", tiny_bundle, config, "--out", out)
    samples = pictures(config)
    assert samples.test is not None
    wanted = evaluate_tower(tower, samples.test, calibration=samples.validation)
    assert read_report(out) == wanted
    assert answer == {
        "report": str(out / "vision.html"),
        "targets": figures(wanted),
        "before": None,
    }


def test_report_shows_the_tower_before_fine_tuning_beside_it(
    tiny_bundle: Path,
    tower: VisionTower,
    write: Write,
    pictures: Read,
    tmp_path: Path,
    ask: Ask,
    say: Say,
) -> None:
    pretrained = Bundle(tiny_bundle).path / "vision"
    resnet = f'[vision]\nbackbone = "test_resnet"\nsize = 32\npretrained = "{pretrained}"\n'
    config = write(vision=resnet)
    command = ("vision", "report", tiny_bundle, config, "--out", tmp_path / "a")
    options = ("--no-robustness", "--before")
    answer = ask(*command, *options)
    samples = pictures(config)
    assert samples.test is not None
    untrained = build_tower(samples.train.classes, load_config(config).vision)
    after, before = (
        evaluate_tower(
            one,
            samples.test,
            calibration=samples.validation,
            options=EvaluationOptions(robustness=False),
        )
        for one in (tower, with_class_means(untrained, samples.train))
    )
    assert (answer["targets"], answer["before"]) == (figures(after), figures(before))
    page = write_report(after, tmp_path / "b", before=before)
    assert Path(answer["report"]).read_text() == page.read_text()
    shown = say(*command, *options)
    first, _, second = shown.partition("vision tower, test photos")
    for table, one in ((first, before), (second, after)):
        assert (
            f"category_1 │ {len(samples.test)} │ {one.targets['category_1'].accuracy.mean:.3f} ["
            in table
        )
    assert shown.endswith("vision.html")


def test_report_refuses_a_shop_without_test_photos_or_a_pretrained_backbone(
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


def test_before_is_refused_if_the_shop_pretrains_its_own_backbone(
    tiny_bundle: Path, write: Write, tmp_path: Path, refusal: Say
) -> None:
    for begin in (False, str(Bundle(tiny_bundle).path / "vision")):
        tower = f'[vision]\nbackbone = "test_resnet"\npretrained = {json.dumps(begin)}\n'
        config = write("[vision.pretraining]\nepochs = 1\n", vision=tower)
        said = refusal(
            "vision", "report", tiny_bundle, config, "--out", tmp_path / "report", "--before"
        )
        assert said.startswith("--before needs the weights that fine-tuning started from")
        assert "set pretrained to OUT/.stages/vision-KEY/checkpoints/pretraining/backbone" in said
    assert not (tmp_path / "report").exists()


def test_a_report_on_photos_of_other_classes_is_refused(
    tiny_bundle: Path, tiny_shop: Shop, tmp_path: Path, write: Write, refusal: Say
) -> None:
    config = write()
    pl.read_parquet(tiny_shop.items).head(50).write_parquet(tmp_path / "items.parquet")
    config.write_text(config.read_text().replace(str(tiny_shop.items), "items.parquet"))
    said = refusal("vision", "report", tiny_bundle, config, "--out", tmp_path / "report")
    assert said.startswith("samples must have the tower's classes for each target")
