"""The callbacks of every run: seeds, a check of the loss, early stopping and checkpoints."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from vision.errors import TrainingError
from vision.training.checkpoints import MarkCheckpoint
from vision.training.run import FitSettings, TrainingRun
from vision.training.seeds import Reseed, count_steps

VALIDATION_LOSS = "validation/loss"
SHOWN = 8


class FiniteLoss(Callback):
    """Stops a run at the first step whose loss is not finite.

    The optimiser has already taken the step when the error is raised, so the module's weights may
    not be finite either: discard the module.

    Args:
        name_samples: Function that returns the names of a batch's samples, for error messages.
    """

    def __init__(self, name_samples: Callable[[Any], Sequence[str]]) -> None:
        self.name_samples = name_samples

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Check the loss of the step.

        Raises:
            TrainingError: If the loss is not finite; the message names the step and its samples.
        """
        loss = outputs["loss"]
        if torch.isfinite(loss):
            return
        names = self.name_samples(batch)
        shown = ", ".join(names[:SHOWN])
        if len(names) > SHOWN:
            shown += f" and {len(names) - SHOWN} more"
        rate = max(group["initial_lr"] for group in trainer.optimizers[0].param_groups)
        raise TrainingError(
            f"loss must be finite, got {loss.item()} at step {count_steps(trainer, batch_idx)} "
            f"(epoch {trainer.current_epoch}) on {shown}; lower learning_rate (now {rate}), set "
            'precision = "32-true" or look for NaN in the inputs'
        )


def build_callbacks(
    settings: FitSettings, run: TrainingRun, name_samples: Callable[[Any], Sequence[str]]
) -> list[Callback]:
    """Return the callbacks that every run has.

    Args:
        settings: Patience, and the checkpoint to keep.
        run: Folder of the checkpoints, seed and fingerprint.
        name_samples: Function that returns the names of a batch's samples, for error messages.
    """
    callbacks: list[Callback] = [
        Reseed(run.seed),
        FiniteLoss(name_samples),
        MarkCheckpoint(run.fingerprint),
    ]
    if settings.patience is not None:
        callbacks.append(EarlyStopping(VALIDATION_LOSS, patience=settings.patience, mode="min"))
    if settings.keep == "best":
        callbacks.append(
            ModelCheckpoint(
                run.workdir,
                "best",
                monitor=VALIDATION_LOSS,
                mode="min",
                enable_version_counter=False,
            )
        )
    # Comes last, to save the state of the others. Without a monitor it keeps the newest only.
    callbacks.append(
        ModelCheckpoint(
            run.workdir,
            "last",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    return callbacks
