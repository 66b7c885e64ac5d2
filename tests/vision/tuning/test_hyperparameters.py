"""A search depends on its seed, prunes bad trials, and continues after an interruption."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vision import finetuning as finetune_module
from vision.config import VisionConfig
from vision.dataset import Samples
from vision.errors import TrainingError
from vision.finetuning import finetune, finetune_run
from vision.training.callbacks import build_callbacks
from vision.training.run import TrainingRun
from vision.tuning.hyperparameters import (
    ReportTrial,
    SearchPlan,
    SearchResult,
    _PrunedError,
    search_hyperparameters,
)
from vision.tuning.space import Choices, Range, SearchSpace

CONFIG = VisionConfig(
    backbone="test_resnet",
    pretrained=False,
    size=16,
    dim=8,
    epochs=1,
    batch_size=8,
    augmentation="none",
    warmup_epochs=0,
    precision="32-true",
)
SPACE = SearchSpace(
    {
        "learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "epochs": Range(low=1, high=2),
        "transfer.layer_decay": Choices(choices=(0.5, 1.0)),
    }
)


@pytest.fixture(scope="module")
def pictures(planted: Callable[..., Samples]) -> tuple[Samples, Samples]:
    return planted(16), planted(8, seed=1)


Pictures = tuple[Samples, Samples]


def run(
    pictures: Pictures,
    workdir: Path,
    n_trials: int,
    *,
    config: VisionConfig = CONFIG,
    space: SearchSpace = SPACE,
    seed: int = 3,
    metric: str | None = "loss",
) -> SearchResult:
    plan = SearchPlan(space, n_trials=n_trials, seed=seed, metric=metric)
    return search_hyperparameters(*pictures, config, plan, workdir=workdir)


@pytest.fixture(scope="module")
def whole(
    pictures: Pictures, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchResult, Path]:
    workdir = tmp_path_factory.mktemp("whole")
    return run(pictures, workdir, 3), workdir


def test_the_best_configuration_is_the_one_with_the_lowest_loss(
    whole: tuple[SearchResult, Path], pictures: Pictures, tmp_path: Path
) -> None:
    result, workdir = whole
    assert result.trials.columns == [
        "number",
        "state",
        "value",
        "measured_epochs",
        "learning_rate",
        "epochs",
        "transfer.layer_decay",
    ]
    assert result.trials["measured_epochs"].to_list() == result.trials["epochs"].to_list()
    assert set(result.trials["state"]) == {"complete"}
    best = result.trials.sort("value").row(0, named=True)
    assert result.value == best["value"]
    assert result.best.learning_rate == best["learning_rate"]
    assert result.best.transfer.layer_decay == best["transfer.layer_decay"]
    assert result.best.backbone == CONFIG.backbone
    train, validation = pictures
    again = finetune(train, result.best, validation=validation, workdir=tmp_path, seed=3)
    assert again.metrics["loss"] == result.value
    assert [file.name for file in workdir.iterdir()] == ["study.db"]


def test_a_continued_search_ends_like_an_uninterrupted_one(
    whole: tuple[SearchResult, Path], pictures: Pictures, tmp_path: Path
) -> None:
    first = run(pictures, tmp_path, 1)
    assert len(first.trials) == 1
    second = run(pictures, tmp_path, 3)
    assert second.trials.equals(whole[0].trials)
    assert second.trials["learning_rate"].n_unique() == 3
    assert second.best == whole[0].best
    assert run(pictures, tmp_path, 3).trials.equals(second.trials), "all trials are finished"


class Interrupt(Callback):
    """Kills the run after the second epoch is measured and before its checkpoint is written."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def test_a_killed_trial_continues_from_its_checkpoint(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace({"learning_rate": Range(low=1e-4, high=1e-2, log=True)})
    config = CONFIG.model_copy(update={"epochs": 2})
    whole = run(pictures, tmp_path / "whole", 1, config=config, space=space)
    with monkeypatch.context() as patch:
        patch.setattr(
            finetune_module,
            "build_callbacks",
            lambda *arguments: [Interrupt(), *build_callbacks(*arguments)],
        )
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(pictures, tmp_path / "killed", 1, config=config, space=space)
    assert (tmp_path / "killed" / "trial-0" / "last.ckpt").exists()
    resumed = run(pictures, tmp_path / "killed", 1, config=config, space=space)
    assert resumed.trials.equals(whole.trials)


def test_another_seed_gives_other_proposals_and_is_refused_in_the_same_folder(
    whole: tuple[SearchResult, Path], pictures: Pictures, tmp_path: Path
) -> None:
    result, workdir = whole
    other = run(pictures, tmp_path, 1, seed=4)
    assert other.trials["learning_rate"][0] != result.trials["learning_rate"][0]
    train, validation = pictures
    with pytest.raises(TrainingError, match=r"study\.db belongs to a search with other samples"):
        run(pictures, workdir, 3, seed=4)
    with pytest.raises(TrainingError, match=r"study\.db belongs to a search with other samples"):
        run((train.take(range(12)), validation), workdir, 3)


def test_trials_worse_than_the_median_are_pruned_and_counted(
    pictures: Pictures, tmp_path: Path
) -> None:
    space = SearchSpace({"learning_rate": Choices(choices=(3e-3, 1e-9))})
    result = run(pictures, tmp_path, 7, space=space)
    assert len(result.trials) == 7
    pruned = result.trials.filter(pl.col("state") == "pruned")
    assert set(pruned["learning_rate"]) == {1e-9}
    assert result.best.learning_rate == 3e-3


def test_a_pruned_run_ends_after_its_epoch(pictures: Pictures, tmp_path: Path) -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-1.0))
    trial = study.ask()
    config = CONFIG.model_copy(update={"epochs": 3})
    train, validation = pictures
    report = ReportTrial(trial, "loss", {})
    place = TrainingRun(tmp_path, 0, torch.device("cpu"))
    with pytest.raises(_PrunedError, match="after epoch 0 of loss"):
        finetune_run(train, config, place, validation=validation, callbacks=[report])
    assert list(study.trials[0].intermediate_values) == [0]


def test_trials_that_cannot_be_trained_are_pruned_and_logged(
    pictures: Pictures, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A start size above the size is refused when the trial is proposed.
    config = CONFIG.model_copy(update={"size": 32, "start_size": 16, "gradient_clip": 1e30})
    space = SearchSpace(
        {"size": Choices(choices=(16, 32)), "start_size": Choices(choices=(16, 32))}
    )
    result = run(pictures, tmp_path / "sizes", 4, config=config, space=space)
    wrong = (pl.col("size") == 16) & (pl.col("start_size") == 32)
    assert result.trials.select(((pl.col("state") == "pruned") == wrong).all()).item()
    assert result.trials.filter(wrong).height > 0
    diverging = SearchSpace({"learning_rate": Choices(choices=(1e30,))})
    with (
        caplog.at_level(logging.WARNING, "vision.tuning.hyperparameters"),
        pytest.raises(TrainingError, match="none of 2 trials could be trained; see the log"),
    ):
        run(pictures, tmp_path / "diverging", 2, config=config, space=diverging)
    assert "{'learning_rate': 1e+30} cannot be trained: loss must be finite" in caplog.text


def test_a_search_prints_nothing_and_restores_the_log_level_of_optuna(
    pictures: Pictures, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    run(pictures, tmp_path, 1)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_wrong_arguments_are_refused_by_name(pictures: Pictures, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_trials must be at least 1, got 0"):
        run(pictures, tmp_path, 0)
    with pytest.raises(ValueError, match="does not fit VisionConfig: unknown field epoch, did you"):
        run(pictures, tmp_path, 1, space=SearchSpace({"epoch": Range(low=1, high=2)}))
    nothing = Samples(pictures[0].images, {}, {}, root=pictures[0].root)
    with pytest.raises(ValueError, match="at least one target"):
        run((nothing, nothing), tmp_path, 1)


def test_an_impossible_metric_is_refused_before_anything_is_trained(
    pictures: Pictures, tmp_path: Path
) -> None:
    train, validation = pictures
    known = "accuracy/colour, accuracy/side.of it, loss"
    with pytest.raises(ValueError, match=f"metric must be one of {known}, got 'accuracy/size'"):
        run(pictures, tmp_path / "run", 1, metric="accuracy/size")
    # The default metric is the accuracy of the last target, which has no label here.
    unlabelled = {**validation.targets, "side.of it": np.full(len(validation), -1)}
    bare = Samples(validation.images, unlabelled, validation.classes, root=validation.root)
    with pytest.raises(ValueError, match="one of accuracy/colour, loss, got"):
        run((train, bare), tmp_path / "run", 1, metric=None)
    assert not (tmp_path / "run").exists()


def test_a_metric_whose_only_picture_is_unreadable_ends_the_search(
    planted: Callable[..., Samples], tmp_path: Path
) -> None:
    train, whole = planted(8), planted(8, seed=1)
    one = {**whole.targets, "side.of it": np.where(np.arange(8) == 3, 1, -1)}
    validation = Samples(whole.images, one, whole.classes, root=whole.root)
    assert whole.root is not None
    (whole.root / "3.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"accuracy/side\.of it needs a readable validation pict"):
        run((train, validation), tmp_path, 2, metric="accuracy/side.of it")


def test_the_error_without_optuna_names_the_extra(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'vitrine-recsys\[search\]'"):
        run(pictures, tmp_path, 1)
