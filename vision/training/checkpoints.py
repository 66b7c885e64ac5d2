"""The checkpoints of a run: marked with its fingerprint, read safely, and loaded at its end."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vision.errors import TrainingError
from vision.training.run import FitSettings, TrainingRun


class MarkCheckpoint(Callback):
    """Marks each checkpoint with the fingerprint of its run and with whether the run is finished.

    A run that stopped early counts as finished, so that it is not trained further when run again.

    Args:
        fingerprint: Digest of everything that the run depends on.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add both marks."""
        last_epoch = trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        checkpoint["fingerprint"] = self.fingerprint
        checkpoint["finished"] = last_epoch or bool(trainer.should_stop)


def read_last(run: TrainingRun) -> dict[str, Any] | None:
    """Return the last checkpoint of a run, or None before its first.

    Raises:
        TrainingError: If the checkpoint is damaged, or has the fingerprint of another run.
    """
    last = run.checkpoint("last")
    found = read_checkpoint(last) if last.exists() else None
    if found is not None and found.get("fingerprint") != run.fingerprint:
        raise TrainingError(
            f"{last} is of a run with other data, configuration or seed; "
            "delete it or choose another workdir"
        )
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, read without executing any object in it.

    Raises:
        TrainingError: If the checkpoint is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # On an incomplete file the unpickler may raise any exception, even IndexError.
    except Exception as error:
        raise TrainingError(f"{path} cannot be read; delete it to start again: {error}") from error
    return content


def load_kept(module: LightningModule, settings: FitSettings, run: TrainingRun) -> int:
    """Load the weights that a finished run keeps, and return the number of epochs it trained."""
    last = read_checkpoint(run.checkpoint("last"))
    kept = last if settings.keep == "last" else read_checkpoint(run.checkpoint("best"))
    module.load_state_dict(kept["state_dict"])
    return int(last["epoch"]) + 1
