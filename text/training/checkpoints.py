"""The checkpoints of a run: whose they are, how they are read, and which one it ends with."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from text.errors import TrainingError
from text.training.run import FitSettings, TrainingRun


class MarkCheckpoint(Callback):
    """Writes into each checkpoint whose run it is of, and whether that run is finished.

    A run that stopped early is finished, too: called again, it stays stopped.

    Args:
        fingerprint: Digest of what the run depends on.
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
    """Return the last checkpoint of a run, or None before the first.

    Raises:
        TrainingError: If the checkpoint is damaged, or is of a run with another fingerprint.
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
    # The unpickler meets a torn file with whatever its last bytes lead to, IndexError included.
    except Exception as error:
        raise TrainingError(f"{path} cannot be read; delete it to start again: {error}") from error
    return content


def load_kept(module: LightningModule, settings: FitSettings, run: TrainingRun) -> int:
    """Load the weights that a finished run keeps, and return the number of epochs it trained."""
    last = read_checkpoint(run.checkpoint("last"))
    kept = last if settings.keep == "last" else read_checkpoint(run.checkpoint("best"))
    module.load_state_dict(kept["state_dict"])
    return int(last["epoch"]) + 1
