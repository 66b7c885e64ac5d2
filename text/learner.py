"""One fine-tuning run as a LightningModule: views, losses, optimiser, schedule, metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from text.config import TextConfig
from text.dataset import UNKNOWN, Batch
from text.encoder import TextEncoder
from text.errors import TrainingError
from text.losses import class_loss, contrastive_loss, cosine_logits
from text.views import build_views


class Learner(LightningModule):
    """Trains an encoder to be found by words and, where there are targets, to tell classes.

    Everything random in a step is drawn from the seed and the step's number, so a run that was
    interrupted between epochs ends as one that was not.

    Args:
        encoder: What is trained.
        config: Schedule and objectives.
        classes: Class names of every target.
        total_steps: Steps of the whole run.
        seed: Seed of every draw.
        fingerprint: Digest of what the run depends on; kept in its checkpoints.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        config: TextConfig,
        *,
        classes: Mapping[str, Sequence[str]],
        total_steps: int,
        seed: int,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.seed = encoder, config, seed
        self.classes, self.total_steps, self.fingerprint = tuple(classes), total_steps, fingerprint
        # One learned direction per class; they shape the embedding and are not kept afterwards.
        # A list, because a parameter's name may not hold the dots and spaces that a target's may.
        self.proxies = nn.ParameterList(
            nn.Parameter(torch.randn(len(names), encoder.dim)) for names in classes.values()
        )
        self._counts: dict[str, Tensor] = {}

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move the labels; the words stay, for views are cut from them before they are moved."""
        return batch._replace(labels=batch.labels.to(device))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout, which draws from torch's own generator."""
        torch.manual_seed(self._step_seed())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            TrainingError: If it is not finite.
        """
        loss, _ = self._loss(batch, np.random.default_rng(self._step_seed()))
        if not torch.isfinite(loss):
            raise TrainingError(
                f"loss must be finite, got {loss.item()} at step {self.global_step} (epoch "
                f"{self.current_epoch}) on rows {batch.rows[:8]}; lower learning_rate (now "
                f'{self.config.learning_rate}) or set precision = "32-true"'
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the epoch's loss and counts of right answers."""
        # The same queries after every epoch, or the losses could not be compared.
        loss, titles = self._loss(batch, np.random.default_rng([self.seed, batch_idx]))
        self.log("validation/loss", loss, batch_size=len(batch.rows), prog_bar=True)
        for name, proxies, labels in self._targets(batch):
            known = labels != UNKNOWN
            right = (cosine_logits(titles, proxies, 1.0).argmax(dim=1) == labels) & known
            count = torch.stack([right.sum(), known.sum()])
            self._counts[name] = self._counts.get(name, torch.zeros_like(count)) + count

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of every target over the texts whose label is known."""
        for name, (right, known) in self._counts.items():
            # Without a known label there is no accuracy; 0 or 1 would both be made up.
            if known > 0:
                self.log(f"validation/accuracy/{name}", right / known)
        self._counts.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is."""
        checkpoint["fingerprint"] = self.fingerprint

    def configure_optimizers(self) -> Any:
        """Return AdamW under a linear warm-up and a cosine to zero."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for p in trained if p.ndim > 1],
                    "weight_decay": self.config.weight_decay,
                },
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
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

    def _step_seed(self) -> int:
        return self.seed * 1_000_003 + self.global_step

    def _targets(self, batch: Batch) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield every target's name, proxies (C, D) and labels (B,)."""
        yield from zip(self.classes, self.proxies, batch.labels.T, strict=True)

    def _loss(self, batch: Batch, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the losses, and the embeddings of the whole texts (B, D)."""
        config = self.config
        views = build_views(batch.texts, pad_id=self.encoder.pad_id, generator=generator).to(
            self.device
        )
        titles = self.encoder(views.title_ids, views.title_mask).float()
        loss = titles.new_zeros(())
        # One text has no negative: it has nothing to be told from.
        if config.contrastive_weight > 0 and len(titles) > 1:
            queries = self.encoder(views.query_ids, views.query_mask).float()
            loss = loss + config.contrastive_weight * contrastive_loss(
                queries, titles, views.also_answers, temperature=config.temperature
            )
        if config.class_weight > 0 and self.classes:
            losses = [
                config.target_weights.get(name, 1.0)
                * class_loss(cosine_logits(titles, proxies, config.temperature), labels)
                for name, proxies, labels in self._targets(batch)
            ]
            loss = loss + config.class_weight * torch.stack(losses).mean()
        return loss, titles


def learning_rate_factor(step: int, warmup: float, total: int) -> float:
    """Return the share of the highest learning rate at a step: linear up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))
