"""Several towers as one: their weights averaged, or their answers."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision.batches import ImageSource
from vision.errors import InvalidArgumentError
from vision.precision import Precision
from vision.tower import VisionTower


def soup(towers: Sequence[VisionTower]) -> VisionTower:
    """Return one tower with the mean of the towers' weights, in evaluation mode.

    The uniform soup of Wortsman et al. (2022, https://arxiv.org/abs/2203.05482): as fast as one
    tower, often better than the best of them. It needs towers that began at the same weights, heads
    and projection included, and then went different ways (another augmentation, learning rate or
    order, not another seed of the weights); between others the mean is of no use, so validate it.
    Batch norms' statistics are averaged as well, which only approximates those of the mean network;
    whole numbers are the first tower's.

    Args:
        towers: At least one, of one architecture and with the same classes.

    Raises:
        InvalidArgumentError: If there is none, or they differ in more than weights.
    """
    first = _first(towers)
    for position, tower in enumerate(towers):
        for name in ("spec", "preprocess", "dim"):
            wanted, got = getattr(first, name), getattr(tower, name)
            if got != wanted:
                raise InvalidArgumentError(
                    f"towers must have the same {name}, got {wanted} and, at {position}, {got}"
                )
    states = [tower.state_dict() for tower in towers]

    def mean(name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        return torch.stack([state[name].to(value) for state in states]).mean(dim=0)

    mixed = copy.deepcopy(first)
    mixed.load_state_dict({name: mean(name, value) for name, value in states[0].items()})
    return mixed.eval()


def ensemble_predict(
    towers: Sequence[VisionTower],
    images: Sequence[ImageSource],
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    precision: Precision = "32-true",
    progress: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Return the mean of the towers' class probabilities of every target, float32 (N, C).

    Args:
        towers: At least one, with the same classes; networks may differ.
        images: Pictures, files' bytes or paths; read once by every tower.
        batch_size: Pictures in one pass.
        device: Where to compute; the towers are moved there. None leaves them where they are.
        precision: As ``VisionTower.embed`` takes it.
        progress: Show Lightning's progress bar, one for each tower.

    Raises:
        InvalidArgumentError: If there is no tower, or their classes differ.
        ImageError: If an image cannot be read; names its position.
    """
    first = _first(towers)
    answers = [
        tower.predict(
            images, batch_size=batch_size, device=device, precision=precision, progress=progress
        )
        for tower in towers
    ]
    return {name: np.mean([answer[name] for answer in answers], axis=0) for name in first.classes}


def _first(towers: Sequence[VisionTower]) -> VisionTower:
    """Return the first tower, whose classes all have."""
    if not towers:
        raise InvalidArgumentError("towers must be at least one, got none")
    for position, tower in enumerate(towers):
        if list(tower.classes.items()) != list(towers[0].classes.items()):
            raise InvalidArgumentError(
                f"towers must have the same targets and classes, but those at {position} "
                "differ from the first tower's"
            )
    return towers[0]
