"""One step of pretraining a backbone: two views of each picture, a loss and the optimiser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from vision.config import PretrainingConfig
from vision.dataset import Batch
from vision.training.augment import augment
from vision.training.presets import get_augmentation
from vision.training.schedule import build_adamw, with_schedule
from vision.training.seeds import step_seed
from vision.training.siamese import Compared, Method, spread
from vision.transforms import Preprocess


class SelfSupervised(LightningModule):
    """Trains a method's backbone on whole batches of stored pictures, without labels.

    Args:
        method: Method whose backbone is trained.
        config: Schedule and augmentation.
        preprocess: Size of the views in pixels, and their normalisation.
        images: Files of the pictures, to name them if a step fails.
        total_steps: Steps of the optimiser in the whole run.
        seed: Random seed of every draw.

    Attributes:
        losses: Mean loss of every finished epoch.
        spreads: Mean spread of the projections in every finished epoch.
    """

    def __init__(
        self,
        method: Method,
        config: PretrainingConfig,
        *,
        preprocess: Preprocess,
        images: Sequence[Path],
        total_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.method, self.config, self.preprocess = method, config, preprocess
        self.images, self.total_steps, self.seed = images, total_steps, seed
        self.augmentation = get_augmentation(config.augmentation)
        self.losses: list[float] = []
        self.spreads: list[float] = []
        self._epoch: list[Tensor] = []
        # The layout that convolutions are fastest in, on processors and on tensor cores.
        self.to(memory_format=torch.channels_last)

    def name_samples(self, batch: Batch) -> list[str]:
        """Return the files of a batch's pictures."""
        return [str(self.images[row]) for row in batch.rows.tolist()]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        compared: Compared = self.method(*self.draw_views(batch))
        loss, projections = compared
        self._epoch.append(torch.stack([loss.detach(), spread(projections)]))
        return loss

    def draw_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return two independent views (B, 3, H, W) of every picture."""
        views = augment(
            batch.pictures.repeat(2, 1, 1, 1),
            batch.aspects.repeat(2),
            self.augmentation,
            self.preprocess,
            size=self.preprocess.size,
            generator=torch.Generator().manual_seed(
                step_seed(self.seed, self.global_step, "augmentation")
            ),
        )
        first, second = views.contiguous(memory_format=torch.channels_last).chunk(2)
        return first, second

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Update what the method derives from its network, such as an average of the weights."""
        self.method.after_step(self.global_step, self.total_steps)

    def on_train_epoch_end(self) -> None:
        """Keep and log the epoch's mean loss and spread."""
        loss, width = torch.stack(self._epoch).mean(dim=0).tolist()
        self._epoch.clear()
        self.losses.append(loss)
        self.spreads.append(width)
        self.log_dict({"pretraining/loss": loss, "pretraining/spread": width}, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the losses and spreads of the finished epochs."""
        checkpoint["losses"], checkpoint["spreads"] = self.losses, self.spreads

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the losses and spreads of the finished epochs."""
        self.losses, self.spreads = list(checkpoint["losses"]), list(checkpoint["spreads"])

    def configure_optimizers(self) -> Any:
        """Return AdamW under a linear warm-up and a cosine to zero."""
        config = self.config
        optimizer = build_adamw(
            self, learning_rate=config.learning_rate, weight_decay=config.weight_decay
        )
        return with_schedule(
            optimizer,
            warmup_share=config.warmup_epochs / config.epochs,
            total_steps=self.total_steps,
        )
