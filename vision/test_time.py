"""Several views of one picture at test time, whose answers are averaged."""

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Views = Literal["one", "flip", "crops"]

CROP_SIDE = 0.8  # of the picture's side


def draw_views(images: Tensor, views: Views) -> Iterator[Tensor]:
    """Yield the views of all pictures, each (B, 3, H, W).

    ``flip`` is the picture and its mirror image; ``crops`` adds its four corners and its centre, as
    large as the picture, and their mirror images: the ten crops of Krizhevsky et al. (2012) beside
    the whole, twelve in all.

    Args:
        images: Prepared pictures (B, 3, H, W).
        views: Which.
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
