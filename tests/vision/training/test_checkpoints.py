"""Checkpoints are marked, whole, and replaced if damaged; text has a copy of the module."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vision.errors import TrainingError
from vision.training.checkpoints import (
    MarkCheckpoint,
    WholeCheckpoints,
    read_checkpoint,
    read_last,
)
from vision.training.run import TrainingRun


def run_in(folder: Path, fingerprint: str = "mine") -> TrainingRun:
    return TrainingRun(folder, 0, torch.device("cpu"), fingerprint=fingerprint)


def save_last(run: TrainingRun, *, epoch: int, stopped: bool = False) -> None:
    """Write the checkpoint of a run of three epochs, with its marks."""
    trainer: Any = SimpleNamespace(current_epoch=epoch, max_epochs=3, should_stop=stopped)
    module: Any = None
    checkpoint: dict[str, Any] = {"state_dict": {"weight": torch.ones(1_000)}}
    MarkCheckpoint(run.fingerprint).on_save_checkpoint(trainer, module, checkpoint)
    torch.save(checkpoint, run.checkpoint("last"))


@pytest.mark.parametrize(
    ("epoch", "stopped", "finished"),
    [(0, False, False), (1, False, False), (1, True, True), (2, False, True)],
)
def test_a_run_is_finished_at_its_last_epoch_and_after_a_stop(
    tmp_path: Path, epoch: int, stopped: bool, finished: bool
) -> None:
    save_last(run_in(tmp_path), epoch=epoch, stopped=stopped)
    found = read_last(run_in(tmp_path))
    assert found is not None
    assert (found["fingerprint"], found["finished"]) == ("mine", finished)


def test_a_run_without_a_checkpoint_starts_at_the_beginning(tmp_path: Path) -> None:
    assert read_last(run_in(tmp_path)) is None


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save_last(run_in(tmp_path, "other"), epoch=0)
    with pytest.raises(TrainingError, match=r"last\.ckpt is of a run with other data"):
        read_last(run_in(tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_after_a_truncated_checkpoint_training_starts_again(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_in(tmp_path)
    save_last(run, epoch=0)
    whole = run.checkpoint("last").read_bytes()
    run.checkpoint("last").write_bytes(whole[: int(share * len(whole))])
    assert read_last(run) is None
    assert f"training starts again: checkpoint {run.checkpoint('last')}" in caplog.text
    assert caplog.text.count("\n") == 1


def test_a_run_that_keeps_its_best_epoch_needs_that_checkpoint_too(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    save_last(run, epoch=0)
    assert read_last(run, "best") is None
    run.checkpoint("last").rename(run.checkpoint("best"))
    save_last(run, epoch=0)
    assert read_last(run, "best") is not None


def test_a_checkpoint_is_written_beside_its_name_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/missing")
    monkeypatch.setattr(tempfile, "tempdir", "/missing")
    last = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, last)
    with pytest.raises(AttributeError):
        WholeCheckpoints().save_checkpoint({"epoch": lambda: 2}, last)
    assert read_checkpoint(last) == {"epoch": 1}
    assert [*tmp_path.iterdir()] == [last]
