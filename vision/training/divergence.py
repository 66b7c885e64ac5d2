"""What is said when a loss stops being a number."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vision.errors import TrainingError

SHOWN = 8


def check_finite(
    loss: Tensor, images: Sequence[Path], rows: Tensor, *, step: int, epoch: int, rate: float
) -> None:
    """Do nothing if the loss is finite.

    Args:
        loss: Scalar.
        images: Files of all training pictures.
        rows: Positions in images of the batch, int64 (B,).
        step: Number of the step, from 0.
        epoch: Number of the epoch, from 0.
        rate: The learning rate that was configured.

    Raises:
        TrainingError: If it is not; names the pictures of the batch.
    """
    if torch.isfinite(loss):
        return
    names = [str(images[row]) for row in rows.tolist()]
    shown = ", ".join(names[:SHOWN])
    if len(names) > SHOWN:
        shown += f" and {len(names) - SHOWN} more"
    raise TrainingError(
        f"loss must be finite, got {loss.item()} at step {step} (epoch {epoch}) on {shown}; "
        f'lower learning_rate (now {rate}) or set precision = "32-true"'
    )
