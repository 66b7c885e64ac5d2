"""How Lightning is set up for a fine-tuning run: callbacks, loaders, checkpoints, silence."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from text.config import TextConfig
from text.dataset import Batch, EpochShuffle, TextSet
from text.errors import TrainingError
from text.training.seeds import Reseed

LAST = "last"
BEST = "best"


def build_callbacks(config: TextConfig, workdir: Path, seed: int) -> list[Callback]:
    """Return early stopping if asked for, and the checkpoint to resume from."""
    callbacks: list[Callback] = [Reseed(seed)]
    # Writing the optimiser's state takes as long as some tiny epochs do. A run that may stop at any
    # epoch has to keep each, or what it stopped at would be unknown.
    every = max(1, config.epochs // 10) if config.patience is None else 1
    if config.patience is not None:
        monitor = "validation/loss"
        callbacks.append(EarlyStopping(monitor, patience=config.patience, mode="min"))
        callbacks.append(
            ModelCheckpoint(
                workdir, BEST, monitor=monitor, mode="min", enable_version_counter=False
            )
        )
    callbacks.append(
        ModelCheckpoint(
            workdir,
            LAST,
            every_n_epochs=every,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    return callbacks


def build_trainer(
    config: TextConfig, device: torch.device, callbacks: list[Callback], progress: bool
) -> Trainer:
    """Return a trainer on one device that writes nothing but what its callbacks write."""
    return Trainer(
        accelerator=device.type,
        devices=1,
        precision=_resolve_precision(config, device),
        max_epochs=config.epochs,
        gradient_clip_val=config.gradient_clip,
        accumulate_grad_batches=config.accumulate,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=progress,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
    )


def _resolve_precision(config: TextConfig, device: torch.device) -> Any:
    if config.precision != "auto":
        return config.precision
    # The short, narrow products of titles gain nothing from a processor's bfloat16 units.
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if fast else "32-true"


def build_loader(
    texts: TextSet, config: TextConfig, order: EpochShuffle | None = None
) -> DataLoader[Batch]:
    """Return batches in this order, or once through from the first where there is none."""
    return DataLoader(
        texts,
        batch_size=config.batch_size,
        sampler=order,
        # A short last batch has few negatives.
        drop_last=order is not None and len(texts) >= config.batch_size,
        collate_fn=_as_is,
    )


def _as_is(batch: Any) -> Batch:
    """Return what the text set gave: it answers with batches, not with texts to collate."""
    whole: Batch = batch
    return whole


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint; no object in it is executed.

    Raises:
        TrainingError: If it is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise TrainingError(f"{path} cannot be read; delete it to start again: {error}") from error
    return content


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from logging what hardware it found, and from three pieces of advice.

    Batches come from memory: worker processes would only copy them. Validation samples may be
    left out. And the checkpoint folder is not empty on purpose when a run is resumed.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*num_workers.*", PossibleUserWarning)
            warnings.filterwarnings("ignore", ".*no `val_dataloader`", PossibleUserWarning)
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists", UserWarning)
            # Lightning 2.6 asks torch 2.14's pytree in a way that is going out of use.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
