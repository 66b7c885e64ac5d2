"""Towers whose weights tests set by hand, so that the right answer is known."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vision.networks.backbones import Backbone, BackboneSpec
from vision.tower import VisionTower
from vision.transforms import Preprocess


def mean_colour_tower(
    classes: Mapping[str, Sequence[str]],
    weights: Mapping[str, Tensor] | None = None,
    *,
    dim: int = 3,
    size: int = 16,
) -> VisionTower:
    """Return a tower whose three features are the mean red, green and blue of a picture.

    Args:
        classes: Class names of every target.
        weights: Weights of the projection and the heads to set. The others stay random.
        dim: Embedding size D.
        size: Height and width of the input in pixels.
    """
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    preprocess = Preprocess(size=size, mean=(0, 0, 0), std=(1, 1, 1))
    backbone = Backbone(network, 3, preprocess, BackboneSpec(name="mean colour", size=size))
    tower = VisionTower(backbone, dim=dim, classes=classes)
    known = tower.state_dict()
    tower.load_state_dict(
        {**known, **{name: torch.as_tensor(w) for name, w in (weights or {}).items()}}
    )
    return tower.eval()
