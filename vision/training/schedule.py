"""How learning rate and picture size change over a run."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vision.config import PretrainingConfig, VisionConfig

GROWING_SHARE = 0.7


def training_size(epoch: int, config: VisionConfig) -> int:
    """Return the side of training pictures in an epoch, in pixels."""
    full = config.train_size or config.size
    return grown_size(epoch, start=config.start_size, full=full, epochs=config.epochs)


def grown_size(epoch: int, *, start: int | None, full: int, epochs: int) -> int:
    """Return the side of pictures in an epoch that grow from ``start`` to ``full``, in pixels.

    Progressive learning after Tan and Le (2021, https://arxiv.org/abs/2104.00298), without their
    growing regularisation: the side grows linearly, in steps of 16 pixels, until 70 % of the run.
    Without a start it is the full one always.
    """
    if start is None:
        return full
    grown = min(1.0, epoch / (GROWING_SHARE * epochs))
    side = start + (full - start) * grown
    return full if grown == 1.0 else min(full, round(side / 16) * 16)


def learning_rate_factor(step: int, warmup: float, total: int) -> float:
    """Return the share of the highest learning rate at a step: linear up, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))


def with_schedule(
    optimizer: Optimizer, config: VisionConfig | PretrainingConfig, total_steps: int
) -> Any:
    """Return what Lightning is told: the optimiser under a warm-up and a cosine, step by step."""
    warmup = min(config.warmup_epochs / config.epochs * total_steps, total_steps / 2)
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, warmup, total_steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
