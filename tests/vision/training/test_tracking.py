"""Curves are in the files that each writer's own reader reads."""

import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vision.config import TrackingConfig
from vision.errors import TrainingError
from vision.training import tracking
from vision.training.processes import Shard
from vision.training.silence import quiet_lightning
from vision.training.tracking import open_logger

STEPS = 4


class Falling(LightningModule):
    """Logs a loss of 1, 1/2, 1/3, ..."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = 1.0 / (self.global_step + 1) + 0.0 * self.weight
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(config: TrackingConfig, workdir: Path, name: str = "finetune") -> None:
    with quiet_lightning(), open_logger(config, workdir, name=name) as logger:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=logger or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Falling(), DataLoader(TensorDataset(torch.zeros(STEPS, 1))))


WANTED = [1.0, 1 / 2, 1 / 3, 1 / 4]


def test_nothing_is_written_by_default(tmp_path: Path) -> None:
    train(TrackingConfig(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_of_several_processes_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "current_shard", lambda: Shard(1, 2))
    with open_logger(TrackingConfig(logger="csv"), tmp_path, name="finetune") as logger:
        assert logger is None


def test_csv_has_every_step(tmp_path: Path) -> None:
    train(TrackingConfig(logger="csv"), tmp_path)
    curves = pl.read_csv(tmp_path / "finetune" / "version_0" / "metrics.csv")
    assert curves["train/loss"].to_list() == pytest.approx(WANTED)
    assert curves["step"].to_list() == [0, 1, 2, 3]


def test_a_resumed_run_keeps_its_earlier_curves(tmp_path: Path) -> None:
    config = TrackingConfig(logger="csv", folder=str(tmp_path / "elsewhere"))
    for _ in range(2):
        train(config, tmp_path / "run")
    versions = tmp_path / "elsewhere" / "finetune"
    assert sorted(file.name for file in versions.iterdir()) == ["version_0", "version_1"]
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_every_step_back(tmp_path: Path) -> None:
    train(TrackingConfig(logger="tensorboard"), tmp_path)
    events = EventAccumulator(str(tmp_path / "finetune" / "version_0")).Reload()
    scalars = events.Scalars("train/loss")
    assert [event.value for event in scalars] == pytest.approx(WANTED)
    assert [event.step for event in scalars] == [0, 1, 2, 3]


@pytest.mark.slow
def test_wandb_offline_writes_one_run_after_another_and_leaves_no_trace(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {key: value for key, value in os.environ.items() if key.startswith("WANDB")}
    config = TrackingConfig(logger="wandb", project="shop")
    for name in ("fold-0", "fold-1"):
        train(config, tmp_path, name)
    runs = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    for run in runs:
        (file,) = run.glob("run-*.wandb")
        written = file.read_bytes()
        assert b"train/loss" in written
        assert all(str(loss).encode() in written for loss in WANTED[1:2] + WANTED[3:])
    assert wandb.run is None
    after = {key: value for key, value in os.environ.items() if key.startswith("WANDB")}
    assert after == before
    assert capfd.readouterr() == ("", "")


def test_wandb_online_needs_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with (
        pytest.raises(TrainingError, match="run `wandb login`, or set offline = true"),
        open_logger(TrackingConfig(logger="wandb", offline=False), tmp_path, name="finetune"),
    ):
        pass


@pytest.mark.parametrize("writer", ["tensorboard", "wandb"])
def test_a_missing_writer_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Any
) -> None:
    monkeypatch.setitem(sys.modules, writer, None)
    with (
        pytest.raises(ImportError, match=rf"pip install 'vitrine-recsys\[{writer}\]'"),
        open_logger(TrackingConfig(logger=writer), tmp_path, name="finetune"),
    ):
        pass
