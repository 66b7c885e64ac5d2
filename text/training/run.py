"""Settings of a training run, and its folder, seed and device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from text.precision import Precision

Checkpoint = Literal["last", "best"]


@dataclass(frozen=True)
class FitSettings:
    """How one run trains.

    Args:
        epochs: Maximum number of passes over the batches.
        patience: Epochs without a lower validation loss before the run stops; None never stops.
        keep: Checkpoint whose weights the module ends with.
        precision: Number format; auto is bfloat16 on hardware that is fast at it, else float32.
        gradient_clip: Maximum norm of the gradient of all parameters together.
        accumulate: Number of batches whose gradients make one step of the optimiser.
    """

    epochs: int
    patience: int | None = None
    keep: Checkpoint = "last"
    precision: Precision = "auto"
    gradient_clip: float = 1.0
    accumulate: int = 1


@dataclass(frozen=True)
class TrainingRun:
    """Folder, seed and device of one run.

    Args:
        workdir: Folder of the checkpoints.
        seed: Random seed of the run.
        device: Device to compute on.
        progress: Whether to show Lightning's progress bar.
        fingerprint: Digest of everything that the run depends on. Checkpoints with another
            fingerprint are refused.
    """

    workdir: Path
    seed: int
    device: torch.device
    progress: bool = False
    fingerprint: str = ""

    def checkpoint(self, name: Checkpoint) -> Path:
        """Return the path of a checkpoint, which need not exist."""
        return self.workdir / f"{name}.ckpt"
