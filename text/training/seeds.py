"""Random seeds of a run, which depend only on the seed of the run and the step.

A run that is resumed after an epoch therefore ends exactly as an uninterrupted run.
"""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def step_seed(seed: int, step: int, stream: str) -> int:
    """Return the seed of one stream of random numbers in one step.

    Args:
        seed: Random seed of the run.
        step: Number of batches since the run began, see :func:`count_steps`.
        stream: Name of the stream, such as ``network``; different streams are independent.
    """
    entropy = [seed, step, *stream.encode()]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def count_steps(trainer: Trainer, batch_idx: int) -> int:
    """Return the number of batches since the run began, over all epochs."""
    return trainer.current_epoch * int(trainer.num_training_batches) + batch_idx


def seed_generators(seed: int) -> None:
    """Seed torch's generator of the processor, and those of the GPUs once they are in use.

    ``torch.manual_seed`` does the same, and formats a traceback for every kind of device that is
    not in use. That takes longer than the step of a small network.

    Args:
        seed: Seed of every generator.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class Reseed(Callback):
    """Seeds torch's global generator before each step, for dropout and other random layers.

    Args:
        seed: Random seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generator from the run's seed and the step."""
        seed_generators(step_seed(self.seed, count_steps(trainer, batch_idx), "network"))
