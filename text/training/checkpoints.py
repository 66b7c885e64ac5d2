"""The checkpoints of a run: marked with its fingerprint, read safely, and loaded at its end."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from text.errors import TrainingError
from text.files import whole_file
from text.training.run import Checkpoint, FitSettings, TrainingRun

logger = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its name, whole or not at all.

    Lightning's own class writes to the folder for temporary files first, which may be too small or
    on another disk, and then copies.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            FileAccessError: If it cannot be written.
        """
        # A damaged checkpoint is noticed when it is read, so training need not wait for the disk.
        with whole_file(Path(path), lasting=False) as scratch:
            torch.save(checkpoint, scratch)


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


def read_last(run: TrainingRun, keep: Checkpoint = "last") -> dict[str, Any] | None:
    """Return the checkpoint to resume a run from, or None if it must start from the beginning.

    That is so before the first checkpoint, and if one that the run needs is damaged.

    Args:
        run: Folder and fingerprint of the run.
        keep: Checkpoint whose weights the run ends with, which is needed as well.

    Raises:
        TrainingError: If the checkpoint has the fingerprint of another run.
    """
    last = run.checkpoint("last")
    if not last.exists():
        return None
    try:
        found = read_checkpoint(last)
        if keep != "last":
            read_checkpoint(run.checkpoint(keep))
    except TrainingError as error:
        logger.warning("training starts again: %s", error)
        return None
    if found.get("fingerprint") != run.fingerprint:
        raise TrainingError(
            f"{last} is of a run with other data, configuration or seed; "
            "delete it or choose another workdir"
        )
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, read without executing any object in it.

    Raises:
        TrainingError: If the checkpoint is missing or damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # On an incomplete file the unpickler may raise any exception, even IndexError.
    except Exception as error:
        # Its words may advise to load objects that run code, so they are left to the cause.
        raise TrainingError(f"checkpoint {path} is missing or damaged") from error
    return content


def load_kept(module: LightningModule, settings: FitSettings, run: TrainingRun) -> int:
    """Load the weights that a finished run keeps, and return the number of epochs it trained."""
    last = read_checkpoint(run.checkpoint("last"))
    kept = last if settings.keep == "last" else read_checkpoint(run.checkpoint("best"))
    module.load_state_dict(kept["state_dict"])
    return int(last["epoch"]) + 1
