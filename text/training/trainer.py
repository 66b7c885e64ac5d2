"""Lightning's trainer for runs on texts, their batches, and resuming."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from text.config import TextConfig
from text.dataset import Batch, EpochShuffle, TextSet
from text.precision import resolve_precision
from text.training.callbacks import build_callbacks
from text.training.checkpoints import WholeCheckpoints, load_kept, read_last
from text.training.run import FitSettings, TrainingRun


def fit_settings(config: TextConfig) -> FitSettings:
    """Return the settings of a run; with patience it keeps the best epoch, else the last."""
    return FitSettings(
        epochs=config.epochs,
        patience=config.patience,
        keep="last" if config.patience is None else "best",
        precision=config.precision,
        gradient_clip=config.gradient_clip,
        accumulate=config.accumulate,
    )


def fit(
    module: LightningModule,
    batches: DataLoader[Batch],
    validation_batches: DataLoader[Batch] | None,
    settings: FitSettings,
    run: TrainingRun,
) -> int:
    """Train a module, from the last checkpoint if there is one, and return the number of epochs.

    The module ends with the weights that the settings keep.

    Raises:
        TrainingError: If the loss is not finite, or the checkpoint is of another run.
    """
    found = read_last(run, settings.keep)
    if found is None or not found["finished"]:
        callbacks = build_callbacks(settings, run, _name_rows)
        build_trainer(settings, run, callbacks).fit(
            module,
            batches,
            validation_batches,
            ckpt_path=None if found is None else run.checkpoint("last"),
            weights_only=True,  # a checkpoint is data: no object in it is executed
        )
    return load_kept(module, settings, run)


def _name_rows(batch: Batch) -> list[str]:
    return [f"row {row}" for row in batch.rows]


def build_trainer(settings: FitSettings, run: TrainingRun, callbacks: list[Callback]) -> Trainer:
    """Return a trainer on one device; only its callbacks write files."""
    return Trainer(
        accelerator=run.device.type,
        devices=1 if run.device.index is None else [run.device.index],
        precision=resolve_precision(settings.precision, run.device),
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        plugins=[WholeCheckpoints()],
        enable_progress_bar=run.progress,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
    )


def build_loader(
    texts: TextSet, batch_size: int, order: EpochShuffle | None = None
) -> DataLoader[Batch]:
    """Return the batches of one epoch.

    Args:
        texts: Text set to read from.
        batch_size: Number of texts in one batch.
        order: Order of the rows; None reads them once from the first to the last.
    """
    return DataLoader(
        texts,
        batch_size=batch_size,
        sampler=order,
        # A short last batch has few negatives.
        drop_last=order is not None and len(order) >= batch_size,
        collate_fn=keep_batch,
    )


def keep_batch(batch: Any) -> Batch:
    """Return the batch unchanged: the text set returns whole batches."""
    whole: Batch = batch
    return whole
