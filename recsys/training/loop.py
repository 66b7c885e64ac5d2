"""The one training loop: a quiet Lightning trainer that resumes and can stop early."""

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from recsys.data.arrays import Ints
from recsys.errors import TrainingError
from recsys.training.schedule import build_adamw, with_schedule
from recsys.training.seeds import Reseed

Precision = Literal["32-true", "bf16-mixed"]

VALIDATION_LOSS = "validation/loss"
WARMUP_SHARE = 0.1  # of the steps
GRADIENT_NORM = 1.0
_N_CHECKPOINTS = 10  # per run without validation: short epochs would mostly write files


def fit(
    module: L.LightningModule,
    batches: DataLoader[Any],
    validation_batches: DataLoader[Any] | None = None,
    *,
    workdir: Path,
    epochs: int,
    seed: int,
    progress: bool,
    patience: int | None = None,
    precision: Precision = "32-true",
    device: str = "cpu",
) -> None:
    """Train the module in place; with validation, it ends with its best weights.

    Goes on from ``workdir/last.ckpt`` if there is one and the run had not ended, with the same
    result as a run that was never interrupted. The folder therefore belongs to one module, data and
    seed. Global random state is as before afterwards.

    Args:
        module: Its ``training_step`` returns the loss; its ``validation_step``, if there are
            validation batches, logs ``VALIDATION_LOSS``.
        batches: Batches of one epoch; from :func:`row_batches` a resumed run repeats their order.
        validation_batches: What early stopping and the choice of weights look at.
        workdir: Folder for checkpoints; made if missing.
        epochs: Passes at most.
        seed: Of dropout and everything else drawn during training.
        progress: Show Lightning's progress bar.
        patience: Epochs without a better validation loss before stopping; None never stops.
        precision: Number format, by Lightning's name.
        device: A torch device name.

    Raises:
        TrainingError: If the loss is not finite or the checkpoint cannot be used.
    """
    callbacks: list[Callback] = [Reseed(seed), _FiniteLoss(), _StayStopped()]
    best = ModelCheckpoint(
        workdir,
        filename="best",
        monitor=VALIDATION_LOSS,
        save_weights_only=True,
        enable_version_counter=False,
    )
    if validation_batches is not None:
        callbacks.append(best)
        if patience is not None:
            callbacks.append(EarlyStopping(VALIDATION_LOSS, patience=patience))
    # After the others: it saves their state as of the end of the epoch.
    every = 1 if validation_batches is not None else max(1, epochs // _N_CHECKPOINTS)
    callbacks.append(
        ModelCheckpoint(
            workdir, filename="last", every_n_epochs=every, enable_version_counter=False
        )
    )
    last = workdir / "last.ckpt"
    place = torch.device(device)
    with _quiet(), isolate_rng():
        trainer = L.Trainer(
            accelerator="gpu" if place.type == "cuda" else place.type,
            devices=1 if place.index is None else [place.index],
            precision=precision,
            max_epochs=epochs,
            callbacks=callbacks,
            gradient_clip_val=GRADIENT_NORM,
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        try:
            # weights_only: a checkpoint is data and is never unpickled into code
            trainer.fit(
                module,
                batches,
                validation_batches,
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            if not last.exists() or trainer.global_step > 0:
                raise
            raise TrainingError(
                f"cannot resume from {last}: {error}; delete {workdir} to start again"
            ) from error
    if validation_batches is not None:
        weights = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(weights["state_dict"])
    module.eval()


def adamw(
    module: nn.Module, *, n_steps: int, learning_rate: float, weight_decay: float
) -> dict[str, Any]:
    """Return AdamW with warm-up and cosine decay to zero, for ``configure_optimizers``.

    Biases, norms and other vectors do not decay.

    Args:
        module: Whose parameters are trained.
        n_steps: Optimiser steps of the whole run.
        learning_rate: At the peak.
        weight_decay: Of matrices.
    """
    optimizer = build_adamw(module, learning_rate=learning_rate, weight_decay=weight_decay)
    return with_schedule(optimizer, warmup_share=WARMUP_SHARE, total_steps=n_steps)


class EpochSampler(Sampler[int]):
    """Rows in an order that depends only on seed and epoch, so that a resumed run repeats it.

    Args:
        draw: Returns the rows of one epoch, always the same number.
        size: That number.
        seed: Of every draw.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], Ints], size: int, *, seed: int
    ) -> None:
        self._draw, self._size, self._seed = draw, size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        # A generator function: Lightning asks for the iterator before it sets a resumed epoch.
        yield from self._draw(np.random.default_rng([self._seed, self._epoch])).tolist()


class _AnyRow(Dataset[int]):
    """Every row is its own sample; modules look rows up in tensors they hold on the device."""

    def __getitem__(self, row: int) -> int:
        return row


def row_batches(
    sampler: Sampler[int] | range, batch_size: int, *, drop_last: bool = False
) -> DataLoader[int]:
    """Return batches of rows, int64 (B,).

    Args:
        sampler: The rows of one epoch, in order.
        batch_size: Rows per batch.
        drop_last: Leave out a last batch that is not full, unless it is the only one.
    """
    return DataLoader(
        _AnyRow(),
        batch_size=min(batch_size, len(sampler)),  # type: ignore[arg-type]
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=torch.tensor,
    )


class Columns(nn.Module):
    """Arrays by name that follow the module's device and are no part of its checkpoints."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        super().__init__()
        self._names = tuple(columns)
        for i, values in enumerate(columns.values()):
            # torch shares the memory, and wants it writable even where nothing writes.
            shared = torch.from_numpy(np.require(values, requirements=["C", "W"]))
            self.register_buffer(f"column_{i}", shared, persistent=False)

    def all(self) -> dict[str, Tensor]:
        """Return every column."""
        return dict(zip(self._names, self.buffers(), strict=True))

    def at(self, rows: Tensor) -> dict[str, Tensor]:
        """Return every column at the rows (B,)."""
        return {name: values[rows] for name, values in self.all().items()}


class _FiniteLoss(Callback):
    """Stops at the end of an epoch whose loss was not finite; checking each step would stall."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any
    ) -> None:
        self._total = self._total + outputs["loss"].detach()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        total, self._total = float(self._total), 0.0
        if not np.isfinite(total):
            raise TrainingError(
                f"loss must be finite, got {total} in epoch {trainer.current_epoch}; lower the "
                "learning rate or look for NaN in the inputs"
            )


class _StayStopped(Callback):
    """Remembers that a run stopped early, so that it does not go on when it is called again."""

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["finished"] = bool(trainer.should_stop)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trainer.should_stop = checkpoint.get("finished", False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's greetings, tips and advice about data loading out of the caller's log."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                r".*does not have many workers.*",
                r".*Checkpoint directory .* exists and is not empty.*",
                r".*is smaller than the logging interval.*",
                r".*LeafSpec.*deprecated.*",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
