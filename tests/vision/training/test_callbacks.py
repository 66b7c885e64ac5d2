"""Callbacks of a run; text has a copy of this file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from vision.errors import TrainingError
from vision.training.callbacks import VALIDATION_LOSS, FiniteLoss, build_callbacks
from vision.training.run import FitSettings, TrainingRun

RUN = TrainingRun(Path("never-made"), 0, torch.device("cpu"))


def check(loss: float, names: list[str]) -> None:
    """Check the loss of the third step of the second epoch."""
    groups = [{"initial_lr": 0.01}, {"initial_lr": 0.5}]
    trainer: Any = SimpleNamespace(
        current_epoch=1, num_training_batches=10, optimizers=[SimpleNamespace(param_groups=groups)]
    )
    module: Any = None
    FiniteLoss(lambda batch: names).on_train_batch_end(
        trainer, module, {"loss": torch.tensor(loss)}, None, 2
    )


def test_a_finite_loss_passes() -> None:
    check(1e30, ["a.png"])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_step_its_samples_and_the_rate(loss: float) -> None:
    with pytest.raises(
        TrainingError,
        match=r"got (nan|inf) at step 12 \(epoch 1\) on 0, 1, .*, 7 and 2 more; .* \(now 0\.5\)",
    ):
        check(loss, [str(row) for row in range(10)])


def test_a_run_that_keeps_its_last_epoch_has_one_checkpoint_and_never_stops_early() -> None:
    callbacks = build_callbacks(FitSettings(epochs=3), RUN, lambda batch: [])
    assert not any(isinstance(one, EarlyStopping) for one in callbacks)
    (last,) = (one for one in callbacks if isinstance(one, ModelCheckpoint))
    assert (last.filename, last.monitor) == ("last", None)


def test_a_run_that_keeps_its_best_epoch_watches_the_validation_loss() -> None:
    settings = FitSettings(epochs=3, patience=2, keep="best")
    callbacks = build_callbacks(settings, RUN, lambda batch: [])
    (stopping,) = (one for one in callbacks if isinstance(one, EarlyStopping))
    best, last = (one for one in callbacks if isinstance(one, ModelCheckpoint))
    assert (stopping.monitor, stopping.patience, stopping.mode) == (VALIDATION_LOSS, 2, "min")
    assert (best.filename, best.monitor, last.filename) == ("best", VALIDATION_LOSS, "last")
