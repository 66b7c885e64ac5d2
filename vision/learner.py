"""One fine-tuning run as a LightningModule: augmentation, loss, optimiser, schedule, metrics."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from vision.augment import augment
from vision.config import VisionConfig
from vision.dataset import UNKNOWN, Batch
from vision.errors import TrainingError
from vision.losses import Mix, cosine_logits, multi_task_loss
from vision.presets import get_augmentation
from vision.tower import VisionTower
from vision.transforms import normalise

GROWING_SHARE = 0.7


class Learner(LightningModule):
    """Trains a tower on whole batches of stored pictures.

    Everything random in a step is drawn from the seed and the step's number, so a run that was
    interrupted between epochs ends as one that was not.

    Args:
        tower: What is trained.
        config: Schedule and regularisation.
        images: Files of the training pictures, to name those of a failed step.
        total_steps: Steps of the whole run.
        seed: Seed of every draw.
        fingerprint: Digest of what the run depends on; kept in its checkpoints.
    """

    def __init__(
        self,
        tower: VisionTower,
        config: VisionConfig,
        *,
        images: Sequence[Path],
        total_steps: int,
        seed: int,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.tower, self.config, self.seed = tower, config, seed
        self.images, self.total_steps, self.fingerprint = images, total_steps, fingerprint
        self.augmentation = get_augmentation(config.augmentation)
        # One learned direction per class; they shape the embedding and are not kept afterwards.
        self.proxies = nn.ParameterList(
            nn.Parameter(torch.randn(len(names), tower.dim)) for names in tower.classes.values()
        )
        self._counts: dict[str, Tensor] = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and stochastic depth, which draw from torch's own generator."""
        torch.manual_seed(self._step_seed("network"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            TrainingError: If it is not finite.
        """
        generator = torch.Generator().manual_seed(self._step_seed("augmentation"))
        images = augment(
            batch.pictures,
            batch.aspects,
            self.augmentation,
            self.tower.preprocess,
            size=training_size(self.current_epoch, self.config),
            generator=generator,
        )
        images, mix = self._mix(images, np.random.default_rng(self._step_seed("mix")))
        loss = self._loss(images.contiguous(memory_format=torch.channels_last), batch.targets, mix)
        if not torch.isfinite(loss):
            raise TrainingError(self._describe_divergence(loss, batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the epoch's loss and counts of right answers."""
        images = normalise(batch.pictures, self.tower.preprocess)
        output = self.tower.outputs(images.contiguous(memory_format=torch.channels_last))
        loss = multi_task_loss(
            output.logits, batch.targets, weights=self.config.target_weights, label_smoothing=0.0
        )
        self.log("validation/loss", loss, batch_size=len(images), prog_bar=True)
        for column, (name, logits) in enumerate(output.logits.items()):
            labels = batch.targets[:, column]
            known = labels != UNKNOWN
            right = (logits.argmax(dim=1) == labels) & known
            count = torch.stack([right.sum(), known.sum()])
            self._counts[name] = self._counts.get(name, torch.zeros_like(count)) + count

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of every target over the pictures whose label is known."""
        for name, (right, known) in self._counts.items():
            # Without a known label there is no accuracy; 0 or 1 would both be made up.
            if known > 0:
                self.log(f"validation/accuracy/{name}", right / known)
        self._counts.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add whose checkpoint it is, and whether anything is left to do."""
        last_epoch = self.current_epoch + 1 >= self.config.epochs
        checkpoint["fingerprint"] = self.fingerprint
        checkpoint["finished"] = last_epoch or bool(self.trainer.should_stop)

    def configure_optimizers(self) -> Any:
        """Return AdamW under a linear warm-up and a cosine to zero."""
        matrices = [p for p in self.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in self.parameters() if p.requires_grad and p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=self.config.learning_rate,
        )
        warmup = self.config.warmup_epochs / self.config.epochs * self.total_steps
        warmup = min(warmup, self.total_steps / 2)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, warmup, self.total_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _step_seed(self, stream: Literal["network", "augmentation", "mix"]) -> int:
        """Return the seed of one of the step's independent streams of draws."""
        entropy = [self.seed, self.global_step, *stream.encode()]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _loss(self, images: Tensor, targets: Tensor, mix: Mix | None) -> Tensor:
        output = self.tower.outputs(images)
        weights, smoothing = self.config.target_weights, self.config.label_smoothing
        loss = multi_task_loss(
            output.logits, targets, weights=weights, label_smoothing=smoothing, mix=mix
        )
        if self.config.embedding_weight == 0:
            return loss
        temperature = self.config.embedding_temperature
        cosines = {
            name: cosine_logits(output.embeddings, proxies, temperature)
            for name, proxies in zip(self.tower.classes, self.proxies, strict=True)
        }
        return loss + self.config.embedding_weight * multi_task_loss(
            cosines, targets, weights=weights, label_smoothing=smoothing, mix=mix
        )

    def _mix(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Mix | None]:
        """Return the images blended with each other, by mixup or cutmix at even odds if both."""
        kinds = [name for name in ("mixup", "cutmix") if getattr(self.config, name) > 0]
        if not kinds:
            return images, None
        kind = kinds[int(rng.integers(len(kinds)))]
        alpha = getattr(self.config, kind)
        share = float(rng.beta(alpha, alpha))
        # The order of a batch is random already: its reverse is as good a partner as any.
        partner = torch.arange(len(images) - 1, -1, -1, device=images.device)
        if kind == "mixup":
            return torch.lerp(images[partner], images, share), Mix(partner, share)
        side = images.shape[-1]
        cut = round(side * math.sqrt(1.0 - share))
        top, left = (int(start) for start in rng.integers(side - cut + 1, size=2))
        mixed = images.clone()
        window = (slice(None), slice(None), slice(top, top + cut), slice(left, left + cut))
        mixed[window] = images[partner][window]
        return mixed, Mix(partner, 1.0 - (cut / side) ** 2)

    def _describe_divergence(self, loss: Tensor, batch: Batch) -> str:
        names = [str(self.images[row]) for row in batch.rows.tolist()]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return (
            f"loss must be finite, got {loss.item()} at step {self.global_step} (epoch "
            f"{self.current_epoch}) on {shown}; lower learning_rate (now "
            f'{self.config.learning_rate}) or set precision = "32-true"'
        )


def training_size(epoch: int, config: VisionConfig) -> int:
    """Return the side of training pictures in an epoch, in pixels.

    Progressive learning after Tan and Le (2021, https://arxiv.org/abs/2104.00298), without their
    growing regularisation: the side grows linearly, in steps of 16 pixels, until 70 % of the run.
    """
    full = config.train_size or config.size
    if config.start_size is None:
        return full
    grown = min(1.0, epoch / (GROWING_SHARE * config.epochs))
    side = config.start_size + (full - config.start_size) * grown
    return full if grown == 1.0 else min(full, round(side / 16) * 16)


def learning_rate_factor(step: int, warmup: float, total: int) -> float:
    """Return the share of the highest learning rate at a step: linear up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))
