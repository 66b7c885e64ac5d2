"""Lightning's trainer for runs on pictures, their batches, and the average of their weights."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from vision.config import VisionConfig
from vision.dataset import Batch, PictureSet
from vision.precision import resolve_precision
from vision.training.checkpoints import WholeCheckpoints
from vision.training.processes import WHOLE, Order, Shard, ShardedOrder, processes_here
from vision.training.run import FitSettings, TrainingRun


def fit_settings(config: VisionConfig) -> FitSettings:
    """Return the settings of a run; with patience it keeps the best epoch, else the last."""
    return FitSettings(
        epochs=config.epochs,
        patience=config.patience,
        keep="last" if config.patience is None else "best",
        precision=config.precision,
        gradient_clip=config.gradient_clip,
        accumulate=config.accumulate,
    )


def average_weights(decay: float | None) -> list[Callback]:
    """Return the callback that averages the weights with this decay, or no callback for None."""
    return [] if decay is None else [WeightAveraging(avg_fn=_warmed_average(decay))]


def _warmed_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a function for an exponential average that forgets faster at first.

    With a constant decay, the random weights of the first step would still be part of the average
    in a short run, and in the first validations.
    """

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        # Batch norms also hold a count of their batches, which cannot be averaged.
        if not averaged.is_floating_point():
            return current
        warmed = torch.clamp((1.0 + count) / (10.0 + count), max=decay)
        return warmed * averaged + (1.0 - warmed) * current

    return average


def build_trainer(
    settings: FitSettings,
    run: TrainingRun,
    callbacks: list[Callback],
    *,
    shard: Shard = WHOLE,
    logger: Logger | None = None,
) -> Trainer:
    """Return a trainer with one device for each process; only callbacks and logger write files.

    Args:
        settings: Epochs, precision, gradient clipping and accumulation.
        run: Device to train on, and whether to show progress.
        callbacks: Callbacks of the run.
        shard: Place of this process among those that train together.
        logger: Writer of training curves; None writes none.
    """
    if logger is not None:
        callbacks = [*callbacks, LearningRateMonitor("epoch")]
    return Trainer(
        accelerator=run.device.type,
        devices=processes_here() if run.device.index is None else [run.device.index],
        num_nodes=shard.world_size // processes_here(),
        strategy=_build_strategy(run.device) if shard.world_size > 1 else "auto",
        # Its conversion loses activations; see ``shared_norms``.
        sync_batchnorm=False,
        use_distributed_sampler=False,
        precision=resolve_precision(settings.precision, run.device),
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        plugins=[WholeCheckpoints()],
        enable_progress_bar=run.progress,
        enable_model_summary=False,
        logger=logger or False,
        num_sanity_val_steps=0,
    )


def _build_strategy(device: torch.device) -> DDPStrategy:
    backend = "nccl" if device.type == "cuda" else "gloo"
    # The only buffers are statistics of batch norms, which are equal wherever they are
    # synchronised. Sending them at every pass would wait for processes with fewer batches.
    return DDPStrategy(
        process_group_backend=backend,
        broadcast_buffers=False,
        # Frozen stages have no gradient, nor has the projection if no loss reads the embedding.
        find_unused_parameters=True,
    )


def build_loader(
    pictures: PictureSet,
    batch_size: int,
    order: Order | None = None,
    *,
    shard: Shard = WHOLE,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Return the batches of one epoch.

    Args:
        pictures: Picture set to read from.
        batch_size: Number of pictures in one step of all processes together.
        order: Order of the rows; None reads them once from the first to the last.
        shard: Rows of each batch that this process reads.
        pin_memory: Whether to keep batches in memory that a CUDA card copies from fastest.
    """
    sampler: Order | Iterable[int]
    if order is None:
        sampler = range(shard.rank, len(pictures), shard.world_size)
    elif shard.world_size > 1:
        sampler = ShardedOrder(order, batch_size=batch_size, shard=shard)
    else:
        sampler = order
    return DataLoader(
        pictures,
        batch_size=batch_size // shard.world_size,
        sampler=sampler,
        # A last batch of one picture would break batch normalisation.
        drop_last=order is not None and len(pictures) >= batch_size,
        collate_fn=keep_batch,
        pin_memory=pin_memory,
    )


def keep_batch(batch: Any) -> Batch:
    """Return the batch unchanged: the picture set returns whole batches."""
    whole: Batch = batch
    return whole
