"""Several towers combined into one prediction: by their mean weights or mean probabilities."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vision.arrays import Floats
from vision.batches import ImageSource
from vision.errors import InvalidArgumentError
from vision.labelling.readable import Readable
from vision.precision import Precision
from vision.tower import VisionTower


def soup(towers: Sequence[VisionTower]) -> VisionTower:
    """Return one tower with the mean of the towers' weights, in evaluation mode.

    This is the uniform soup of Wortsman et al. (2022, https://arxiv.org/abs/2203.05482). It is as
    fast as one tower, and often better than the best of them. The towers must have started from the
    same weights, also in heads and projection, and differ in augmentation, learning rate or order.
    The mean of towers with different initial weights is useless, so validate the result. The
    statistics of batch norms are averaged as well, which is an approximation. Integer values are
    copied from the first tower.

    Args:
        towers: At least one tower, all with the same architecture and classes.

    Raises:
        InvalidArgumentError: If the list is empty, or the towers differ in more than weights.
    """
    first = _first(towers)
    for position, tower in enumerate(towers):
        for name in ("spec", "preprocess", "dim"):
            wanted, got = getattr(first, name), getattr(tower, name)
            if got != wanted:
                raise InvalidArgumentError(
                    f"towers must have the same {name}, got {wanted} at 0 and {got} at {position}"
                )
    states = [tower.state_dict() for tower in towers]

    def mean(name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        return torch.stack([state[name].to(value) for state in states]).mean(dim=0)

    mixed = copy.deepcopy(first)
    mixed.load_state_dict({name: mean(name, value) for name, value in states[0].items()})
    return mixed.eval()


def ensemble_predict_proba(
    towers: Sequence[VisionTower],
    images: Sequence[ImageSource] | Readable,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    precision: Precision = "32-true",
    progress: bool = False,
) -> dict[str, Floats]:
    """Return the mean of the towers' class probabilities of every target, float32 (N, C).

    Args:
        towers: At least one tower, all with the same classes. Networks may differ.
        images: PIL images, file contents or paths, read once by every tower; or those of them
            that can be read.
        batch_size: Images in one pass.
        device: Device to move the towers to and to compute on. None leaves the towers in place.
        precision: Arithmetic of the networks, see ``VisionTower.embed``.
        progress: Whether to show Lightning's progress bar, one for each tower.

    Raises:
        InvalidArgumentError: If the list of towers is empty, or their classes differ.
        ImageError: If an image cannot be read. The message has its position.
    """
    first = _first(towers)
    probabilities = [
        tower.predict_proba(
            images, batch_size=batch_size, device=device, precision=precision, progress=progress
        )
        for tower in towers
    ]
    return {name: np.mean([p[name] for p in probabilities], axis=0) for name in first.classes}


def _first(towers: Sequence[VisionTower]) -> VisionTower:
    """Return the first tower, after checking that all have its classes."""
    if not towers:
        raise InvalidArgumentError("towers must be at least one, got none")
    for position, tower in enumerate(towers):
        if list(tower.classes.items()) != list(towers[0].classes.items()):
            raise InvalidArgumentError(
                f"towers must have the same targets and classes, but tower {position} "
                "differs from tower 0"
            )
    return towers[0]
