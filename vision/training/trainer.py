"""How Lightning is set up for a fine-tuning run: callbacks, loaders, checkpoints, silence."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from vision.config import VisionConfig
from vision.dataset import Batch, PictureSet
from vision.errors import TrainingError
from vision.precision import resolve_precision
from vision.training.processes import WHOLE, Order, Shard, ShardedOrder, processes_here
from vision.training.seeds import Reseed

LAST = "last"
BEST = "best"


def build_callbacks(config: VisionConfig, workdir: Path, seed: int) -> list[Callback]:
    """Return averaging and early stopping if asked for, and the checkpoint to resume from."""
    callbacks: list[Callback] = [Reseed(seed)]
    if config.ema is not None:
        callbacks.append(WeightAveraging(avg_fn=_warmed_average(config.ema)))
    if config.patience is not None:
        monitor = "validation/loss"
        callbacks.append(EarlyStopping(monitor, patience=config.patience, mode="min"))
        callbacks.append(
            ModelCheckpoint(
                workdir, BEST, monitor=monitor, mode="min", enable_version_counter=False
            )
        )
    # Without a monitor the newest replaces the one before.
    callbacks.append(
        ModelCheckpoint(workdir, LAST, save_on_train_epoch_end=True, enable_version_counter=False)
    )
    return callbacks


def _warmed_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return an exponential average that forgets faster at first.

    At a constant decay the random weights of the first step would still be in the average of a
    short run, and in what is validated early on.
    """

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        # Batch norms count their batches beside the statistics; of a count there is no average.
        if not averaged.is_floating_point():
            return current
        warmed = torch.clamp((1.0 + count) / (10.0 + count), max=decay)
        return warmed * averaged + (1.0 - warmed) * current

    return average


def build_trainer(
    config: VisionConfig,
    device: torch.device,
    callbacks: list[Callback],
    progress: bool,
    *,
    shard: Shard = WHOLE,
    logger: Logger | None = None,
) -> Trainer:
    """Return a trainer on one device a process that writes what callbacks and logger write."""
    if logger is not None:
        callbacks = [*callbacks, LearningRateMonitor("epoch")]
    return Trainer(
        accelerator=device.type,
        devices=processes_here(),
        num_nodes=shard.world_size // processes_here(),
        strategy=_build_strategy(device) if shard.world_size > 1 else "auto",
        # Its conversion loses activations; see ``shared_norms``.
        sync_batchnorm=False,
        use_distributed_sampler=False,
        precision=resolve_precision(config.precision, device),
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.gradient_clip,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=progress,
        enable_model_summary=False,
        logger=logger or False,
        num_sanity_val_steps=0,
    )


def _build_strategy(device: torch.device) -> DDPStrategy:
    backend = "nccl" if device.type == "cuda" else "gloo"
    # Buffers are batch norms' statistics: the same everywhere where they are synchronised. Sending
    # them at every pass would wait for processes that have fewer validation batches.
    return DDPStrategy(
        process_group_backend=backend,
        broadcast_buffers=False,
        # Frozen stages, and the projection where no loss reads the embedding, have no gradient.
        find_unused_parameters=True,
    )


def build_loader(
    pictures: PictureSet,
    config: VisionConfig,
    device: torch.device,
    order: Order | None = None,
    *,
    shard: Shard = WHOLE,
) -> DataLoader[Batch]:
    """Return batches in this order, or once through from the first where there is none."""
    sampler: Order | Iterable[int]
    if order is None:
        sampler = range(shard.rank, len(pictures), shard.world_size)
    elif shard.world_size > 1:
        sampler = ShardedOrder(order, batch_size=config.batch_size, shard=shard)
    else:
        sampler = order
    return DataLoader(
        pictures,
        batch_size=config.batch_size // shard.world_size,
        sampler=sampler,
        # A last batch of one picture would break batch normalisation.
        drop_last=order is not None and len(pictures) >= config.batch_size,
        collate_fn=_as_is,
        pin_memory=device.type == "cuda",
    )


def _as_is(batch: Any) -> Batch:
    """Return what the picture set gave: it answers with batches, not with pictures to collate."""
    whole: Batch = batch
    return whole


def read_last(workdir: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the last checkpoint of a run; nothing where it has none yet.

    Raises:
        TrainingError: If it is damaged, or that of a run with another fingerprint.
    """
    last = workdir / f"{LAST}.ckpt"
    found = read_checkpoint(last) if last.exists() else None
    if found is not None and found.get("fingerprint") != fingerprint:
        raise TrainingError(
            f"{last} is of a run with other pictures, labels, configuration or seed; "
            "delete it or choose another workdir"
        )
    return found


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint; no object in it is executed.

    Raises:
        TrainingError: If it is damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # The unpickler meets a torn file with whatever its last bytes lead to, IndexError included.
    except Exception as error:
        raise TrainingError(f"{path} cannot be read; delete it to start again: {error}") from error
    return content


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from logging what hardware it found, and from advice that does not apply.

    Batches come from memory in one indexing operation: worker processes would only copy them.
    Validation is optional. The checkpoint folder is not empty when a run is resumed. Curves have
    one point an epoch, however few its batches.
    """
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*num_workers.*", PossibleUserWarning)
            warnings.filterwarnings("ignore", ".*no `val_dataloader`.*", PossibleUserWarning)
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists", UserWarning)
            warnings.filterwarnings("ignore", ".*the logging interval.*", PossibleUserWarning)
            # Lightning 2.6 asks torch 2.14's pytree in a way that is going out of use.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
