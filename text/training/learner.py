"""One step of fine-tuning a text encoder: queries, losses, the optimiser and metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from text.config import TextConfig
from text.dataset import UNKNOWN, Batch
from text.encoder import TextEncoder, pad
from text.training.callbacks import VALIDATION_LOSS
from text.training.losses import class_loss, contrastive_loss, cosine_logits
from text.training.queries import Queries, draw_queries
from text.training.schedule import build_adamw, with_schedule
from text.training.seeds import count_steps, step_seed


class Learner(LightningModule):
    """Trains an encoder so that words, categories and related texts find its texts.

    If there are targets, the encoder learns their classes as well.

    Args:
        encoder: Encoder to train.
        config: Schedule and objectives.
        classes: Class names of every target.
        total_steps: Number of steps of the optimiser in the whole run.
        seed: Random seed of the run.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        config: TextConfig,
        *,
        classes: Mapping[str, Sequence[str]],
        total_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.seed = encoder, config, seed
        self.classes, self.total_steps = tuple(classes), total_steps
        # One learned direction per class, which shapes the embedding and is dropped afterwards.
        # A list, because names of parameters may not have the dots and spaces of targets.
        self.proxies = nn.ParameterList(
            nn.Parameter(torch.randn(len(names), encoder.dim)) for names in classes.values()
        )
        self._counts: dict[str, Tensor] = {}

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move the labels; the words stay on the processor, where queries are cut from them."""
        return batch._replace(labels=batch.labels.to(device))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        seed = step_seed(self.seed, count_steps(self.trainer, batch_idx), "queries")
        loss, _ = self._loss(batch, np.random.default_rng(seed))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of a batch, and add its right answers to the counts of the epoch."""
        # The same queries after every epoch, so that losses can be compared.
        loss, titles = self._loss(batch, np.random.default_rng([self.seed, batch_idx]))
        self.log(VALIDATION_LOSS, loss, batch_size=len(batch.rows), prog_bar=True)
        for name, proxies, labels in self._targets(batch):
            known = labels != UNKNOWN
            right = (cosine_logits(titles, proxies, 1.0).argmax(dim=1) == labels) & known
            count = torch.stack([right.sum(), known.sum()])
            self._counts[name] = self._counts.get(name, torch.zeros_like(count)) + count

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy of each target over the texts whose label is known."""
        for name, (right, known) in self._counts.items():
            # Without a known label the accuracy is undefined; 0 or 1 would be made up.
            if known > 0:
                self.log(f"validation/accuracy/{name}", right / known)
        self._counts.clear()

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

    def _targets(self, batch: Batch) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the name, proxies (C, D) and labels (B,) of each target."""
        yield from zip(self.classes, self.proxies, batch.labels.T, strict=True)

    def _loss(self, batch: Batch, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the losses, and the embeddings of the whole texts (B, D)."""
        ids, mask = pad([text.ids() for text in batch.texts], self.encoder.pad_id)
        titles = self.encoder(ids.to(self.device), mask.to(self.device)).float()
        loss = 0.0 * titles.sum()  # has a gradient even if no text of the batch has a query
        for weight, queries in self._queries(batch, generator):
            loss = loss + weight * self._find(titles, queries.to(self.device))
        if self.config.class_weight > 0 and self.classes:
            loss = loss + self.config.class_weight * self._classify(titles, batch)
        return loss, titles

    def _queries(
        self, batch: Batch, generator: np.random.Generator
    ) -> Iterator[tuple[float, Queries]]:
        """Yield the queries that should find the batch's texts, each kind with its weight."""
        config, pad_id = self.config, self.encoder.pad_id
        texts, categories = batch.texts, batch.categories
        if config.contrastive_weight > 0:
            words = draw_queries(texts, texts, pad_id=pad_id, generator=generator)
            yield config.contrastive_weight, words
        if config.category_weight > 0 and categories:
            # Some words of a path may name other categories as well, or occur only in a title.
            described = [
                replace(text, words=text.words + category.words)
                for text, category in zip(texts, categories, strict=True)
            ]
            named = draw_queries(categories, described, pad_id=pad_id, generator=generator)
            yield config.category_weight, named
        if config.pair_weight > 0:
            partners = batch.pairs.draw(batch.rows, pad_id=pad_id, generator=generator)
            yield config.pair_weight, partners

    def _find(self, titles: Tensor, queries: Queries) -> Tensor:
        """Return the loss of finding texts (B, D) by these queries."""
        if len(queries.rows) < 2:
            return titles.new_zeros(())  # a single text has no other to contrast with
        return contrastive_loss(
            self.encoder(queries.ids, queries.mask).float(),
            titles[queries.rows],
            queries.also_answers,
            temperature=self.config.temperature,
        )

    def _classify(self, titles: Tensor, batch: Batch) -> Tensor:
        """Return the mean of the weighted losses of all targets."""
        losses = [
            self.config.target_weights.get(name, 1.0)
            * class_loss(cosine_logits(titles, proxies, self.config.temperature), labels)
            for name, proxies, labels in self._targets(batch)
        ]
        return torch.stack(losses).mean()
