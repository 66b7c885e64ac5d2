"""One step of fine-tuning a vision tower: augmentation, losses, the optimiser and metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.config import VisionConfig
from vision.dataset import UNKNOWN, Batch
from vision.networks.transfer import fix_norms, freeze_stages, parameter_groups
from vision.tower import TowerOutput, VisionTower
from vision.training.adversarial import perturb
from vision.training.augment import augment
from vision.training.callbacks import VALIDATION_LOSS
from vision.training.growth import training_size
from vision.training.losses import Mix, cosine_logits, multi_task_loss
from vision.training.metric_losses import build_metric_objective
from vision.training.mixing import mix_pictures
from vision.training.objective import build_objective
from vision.training.policies import apply_policy
from vision.training.presets import get_augmentation
from vision.training.processes import WHOLE, Shard, gather, total
from vision.training.schedule import with_schedule
from vision.training.seeds import count_steps, step_seed
from vision.transforms import normalise


class Learner(LightningModule):
    """Trains a tower on whole batches of stored pictures.

    Args:
        tower: Tower to train.
        config: Schedule and regularisation.
        images: Files of the training pictures, to name them if a step fails.
        counts: Number of pictures of each class by target name, int64 (C,).
        total_steps: Steps of the optimiser in the whole run.
        seed: Random seed of every draw.
        shard: Place of this process among those that train together.
    """

    def __init__(
        self,
        tower: VisionTower,
        config: VisionConfig,
        *,
        images: Sequence[Path],
        counts: Mapping[str, NDArray[np.int64]],
        total_steps: int,
        seed: int,
        shard: Shard = WHOLE,
    ) -> None:
        super().__init__()
        self.tower, self.config, self.seed, self.shard = tower, config, seed, shard
        self.images, self.total_steps = images, total_steps
        self.augmentation = get_augmentation(config.augmentation)
        self.objective = build_objective(config, counts)
        # One learned direction per class; they shape the embedding and are not kept afterwards.
        self.proxies = nn.ParameterList(
            nn.Parameter(torch.randn(len(names), tower.dim))
            for names in tower.classes.values()
            if config.embedding_weight > 0
        )
        target = config.objective.metric_target or [*tower.classes][-1]
        self.metric_column = [*tower.classes].index(target)
        self.metric = build_metric_objective(
            config.objective, n_classes=len(tower.classes[target]), dim=tower.dim
        )
        self._step = 0  # batches since the run began
        # Sums over one validation by target: cross-entropy, right answers, known labels.
        self._counted: dict[str, Tensor] = {}

    def name_samples(self, batch: Batch) -> list[str]:
        """Return the files of a batch's pictures."""
        return [str(self.images[row]) for row in batch.rows.tolist()]

    def on_train_epoch_start(self) -> None:
        """Unfreeze the stages of the backbone that learn from this epoch on."""
        freeze_stages(self.tower, self.config.transfer, self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Count the step and keep fixed norms in evaluation mode."""
        self._step = count_steps(self.trainer, batch_idx)
        fix_norms(self.tower, self.config.transfer)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, mix = self._prepare(batch)
        output, targets = self._outputs(images), gather(batch.targets, self.shard)
        loss = self._loss(output, targets, mix)
        if self.metric is not None:
            loss = loss + self.metric(output.embeddings, targets[:, self.metric_column])
        if self.config.adversarial.method != "none":
            changed = self._mistaken(images, targets, mix)
            weight = self.config.adversarial.weight
            loss = torch.lerp(loss, self._loss(self._outputs(changed), targets, mix), weight)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the loss; a curve has one point an epoch."""
        loss = outputs["loss"] * self.config.accumulate
        self.log("training/loss", loss, batch_size=len(batch.rows), on_step=False, on_epoch=True)

    def on_validation_epoch_start(self) -> None:
        """Set the sums to zero, for the same targets in every process."""
        self._counted = {name: torch.zeros(3, device=self.device) for name in self.tower.classes}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the sums of each target, over the pictures whose label is known."""
        images = normalise(batch.pictures, self.tower.preprocess)
        output = self.tower.outputs(images.contiguous(memory_format=torch.channels_last))
        for column, (name, logits) in enumerate(output.logits.items()):
            labels = batch.targets[:, column]
            loss = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
            # No prediction is -1, so an unknown label is never right.
            right = logits.argmax(dim=1) == labels
            self._counted[name] += torch.stack([loss, right.sum(), (labels != UNKNOWN).sum()])

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of each target, and the weighted mean of their cross-entropies."""
        weights = [self.config.target_weights.get(name, 1.0) for name in self._counted]
        mean = torch.zeros((), device=self.device)
        for weight, (name, sums) in zip(weights, self._counted.items(), strict=True):
            loss, right, known = total(sums, self.shard)
            mean += weight * loss / known.clamp(min=1)
            # Without a known label the accuracy is undefined; 0 or 1 would be made up.
            if known > 0:
                self.log(f"validation/accuracy/{name}", right / known)
        self.log(VALIDATION_LOSS, mean / sum(weights), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW under a linear warm-up and a cosine to zero."""
        shaping = (self.proxies, self.objective, self.metric)
        optimizer = torch.optim.AdamW(
            parameter_groups(
                self.tower,
                self.config.transfer,
                [p for part in shaping if part is not None for p in part.parameters()],
                learning_rate=self.config.learning_rate,
                weight_decay=self.config.weight_decay,
            )
        )
        return with_schedule(
            optimizer,
            warmup_share=self.config.warmup_epochs / self.config.epochs,
            total_steps=self.total_steps,
        )

    def _prepare(self, batch: Batch) -> tuple[Tensor, Mix | None]:
        """Return this process's augmented, blended pictures (b, 3, H, W), and how they blend."""
        generator = torch.Generator().manual_seed(step_seed(self.seed, self._step, "augmentation"))
        pictures = apply_policy(
            batch.pictures, self.config.policy, generator=generator, shard=self.shard
        )
        images = augment(
            pictures,
            batch.aspects,
            self.augmentation,
            self.tower.preprocess,
            size=training_size(self.current_epoch, self.config),
            generator=generator,
            shard=self.shard,
        )
        rng = np.random.default_rng(step_seed(self.seed, self._step, "mix"))
        images, mix = mix_pictures(images, self.config, rng)
        if mix is not None:
            mix = mix._replace(partner=self._shared_rows(mix.partner))
        return images.contiguous(memory_format=torch.channels_last), mix

    def _shared_rows(self, rows: Tensor) -> Tensor:
        """Return rows (B,) of the shared batch for a mapping between this process's rows (b,)."""
        ranks = torch.arange(self.shard.world_size, device=rows.device)
        return (rows[:, None] * self.shard.world_size + ranks).flatten()

    def _outputs(self, images: Tensor) -> TowerOutput:
        """Return the tower's output for the pictures of all processes."""
        return self.tower.read(gather(self.tower.backbone(images), self.shard))

    def _loss(self, output: TowerOutput, targets: Tensor, mix: Mix | None) -> Tensor:
        config = self.config
        loss: Tensor = self.objective(output.logits, targets, mix)
        if self.proxies:
            names = zip(self.tower.classes, self.proxies, strict=True)
            temperature = config.embedding_temperature
            cosines = {
                name: cosine_logits(output.embeddings, proxies, temperature)
                for name, proxies in names
            }
            loss = loss + config.embedding_weight * multi_task_loss(
                cosines,
                targets,
                weights=config.target_weights,
                label_smoothing=config.label_smoothing,
                mix=mix,
            )
        return loss

    def _mistaken(self, images: Tensor, targets: Tensor, mix: Mix | None) -> Tensor:
        """Return pictures changed so that the heads mistake them; norms keep their statistics."""
        self.tower.eval()

        def loss_of(changed: Tensor) -> Tensor:
            loss: Tensor = self.objective(self._outputs(changed).logits, targets, mix)
            return loss

        changed = perturb(images, loss_of, self.config.adversarial, self.tower.preprocess)
        self.tower.train()
        fix_norms(self.tower, self.config.transfer)
        return changed
