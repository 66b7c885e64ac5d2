"""Test-time augmentation: several views of a picture, whose outputs are averaged."""

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Views = Literal["one", "flip", "crops"]

CROP_SIDE = 0.8  # side of a crop, as a share of the picture's side


def draw_views(images: Tensor, views: Views) -> Iterator[Tensor]:
    """Yield one view of all pictures after another, each (B, 3, H, W).

    ``one`` is the picture alone. ``flip`` adds its mirror image. ``crops`` also adds the four
    corners and the centre, enlarged to the size of the picture, with their mirror images: these are
    the ten crops of Krizhevsky et al. (2012), and twelve views in all.

    Args:
        images: Prepared pictures (B, 3, H, W).
        views: Name of the set of views.
    """
    yield images
    if views == "one":
        return
    yield images.flip(3)
    if views == "flip":
        return
    height, width = (round(CROP_SIDE * side) for side in images.shape[2:])
    bottom, right = images.shape[2] - height, images.shape[3] - width
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    for top, left in corners:
        crop = images[:, :, top : top + height, left : left + width]
        enlarged = F.interpolate(crop, images.shape[2:], mode="bilinear", align_corners=False)
        yield enlarged
        yield enlarged.flip(3)
