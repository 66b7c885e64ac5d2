"""Train a network above the towers: the vision tower's loop, on batches of row numbers."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recsys.training.tower_errors import translate_tower_errors
from vision.training.callbacks import build_callbacks
from vision.training.checkpoints import load_kept, read_checkpoint, read_last
from vision.training.run import FitSettings, TrainingRun
from vision.training.schedule import build_adamw, with_schedule
from vision.training.silence import quiet_lightning
from vision.training.trainer import build_trainer

WARMUP_SHARE = 0.1  # of the steps


@translate_tower_errors()
def fit(
    module: LightningModule,
    batches: DataLoader[Any],
    validation_batches: DataLoader[Any] | None,
    settings: FitSettings,
    run: TrainingRun,
) -> int:
    """Train a module, from the last checkpoint if there is one.

    Returns the number of epochs after which it had the weights that the settings keep. The module
    ends in evaluation mode with these weights. A resumed run ends with the same weights as an
    uninterrupted one. Global random state is restored afterwards.

    Args:
        module: Module whose ``training_step`` returns the loss and whose ``validation_step``, if
            there are validation batches, logs ``VALIDATION_LOSS``.
        batches: Batches of one epoch. Those of an ``EpochSampler`` have the same order when a run
            is resumed.
        validation_batches: Batches for early stopping and the choice of weights.
        settings: Epochs, patience, and the checkpoint to keep.
        run: Folder of the checkpoints, seed and device; the fingerprint is computed here.

    Raises:
        TrainingError: If the loss is not finite, or the checkpoint is of another run.
        FileAccessError: If a checkpoint cannot be written.
    """
    run = replace(run, fingerprint=_fingerprint(module, settings, run))
    found = read_last(run, settings.keep)
    with quiet_lightning(), isolate_rng():
        if found is None or not found["finished"]:
            callbacks = build_callbacks(settings, run, _name_rows)
            build_trainer(settings, run, callbacks).fit(
                module,
                batches,
                validation_batches,
                ckpt_path=None if found is None else run.checkpoint("last"),
                weights_only=True,  # a checkpoint is data: no object in it is executed
            )
    load_kept(module, settings, run)
    module.eval()
    return int(read_checkpoint(run.checkpoint(settings.keep))["epoch"]) + 1


def adamw(
    module: nn.Module, *, n_steps: int, learning_rate: float, weight_decay: float
) -> dict[str, Any]:
    """Return AdamW with warm-up and cosine decay to zero, for ``configure_optimizers``.

    Args:
        module: Module whose parameters are trained.
        n_steps: Steps of the optimiser in the whole run.
        learning_rate: Highest learning rate of the run.
        weight_decay: Weight decay of matrices; biases, norms and other vectors do not decay.
    """
    optimizer = build_adamw(module, learning_rate=learning_rate, weight_decay=weight_decay)
    return with_schedule(optimizer, warmup_share=WARMUP_SHARE, total_steps=n_steps)


def _name_rows(batch: Any) -> Sequence[str]:
    """Return names for the samples of a batch of row numbers, or of pictures with row numbers."""
    rows: Tensor = batch if isinstance(batch, Tensor) else batch.rows
    return [f"row {row}" for row in rows.tolist()]


def _fingerprint(module: nn.Module, settings: FitSettings, run: TrainingRun) -> str:
    """Return a digest of what a checkpoint must fit: weights by name and shape, settings, seed.

    Data and configuration need no place in it: the folder of a stage is named by their hash.
    """
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    return hashlib.sha256(f"{shapes} {settings} {run.seed}".encode()).hexdigest()
