"""What one training run is: how long it trains, what it keeps, where, and from which seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "32-true", "bf16-mixed"]
Checkpoint = Literal["last", "best"]


@dataclass(frozen=True)
class FitSettings:
    """How one run trains.

    Args:
        epochs: Maximum number of passes over the batches.
        patience: Epochs without a lower validation loss before the run stops; None trains all.
        keep: Checkpoint whose weights the module ends with.
        precision: Number format; auto is bfloat16 where the hardware is fast at it.
        gradient_clip: Largest norm of the gradient of all parameters together.
        accumulate: Batches whose gradients make one step of the optimiser.
    """

    epochs: int
    patience: int | None = None
    keep: Checkpoint = "last"
    precision: Precision = "auto"
    gradient_clip: float = 1.0
    accumulate: int = 1


@dataclass(frozen=True)
class TrainingRun:
    """Where one run trains, and which run it is.

    Args:
        workdir: Folder of the checkpoints.
        seed: Random seed of every draw.
        device: Device to compute on.
        progress: Whether Lightning's progress bar is shown.
        fingerprint: Digest of what the run depends on; a checkpoint of another run is refused.
    """

    workdir: Path
    seed: int
    device: torch.device
    progress: bool = False
    fingerprint: str = ""

    def checkpoint(self, name: Checkpoint) -> Path:
        """Return the path of a checkpoint, whether it is there or not."""
        return self.workdir / f"{name}.ckpt"
