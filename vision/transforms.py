"""How a picture becomes the tensor that a tower reads; saved with the tower."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

# Mean and standard deviation of the pixels of ImageNet, which most published weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# A picture narrower than the input and over this many times as tall as it is resized in two steps.
TALL = 16

Fit = Literal["stretch", "crop"]  # how a picture is made square


class Preprocess(BaseModel):
    """Size, normalisation and resampling of the pictures that a tower was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=8, le=4096, description="Height and width of the input in pixels.")
    mean: tuple[float, float, float] = Field(
        default=IMAGENET_MEAN,
        description="Value subtracted from each colour channel after scaling to 0..1.",
    )
    std: tuple[float, float, float] = Field(
        default=IMAGENET_STD,
        description="Divisor of each colour channel after the mean is subtracted.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        default="bicubic", description="Filter that resizes pictures."
    )
    fit: Fit = Field(
        default="stretch",
        description="Way to make a picture square: stretch it whole, or crop its centre.",
    )


def build_resize(preprocess: Preprocess) -> v2.Transform:
    """Return the transform that resizes PIL images or tensors to the tower's input size."""
    interpolation = InterpolationMode(preprocess.interpolation)
    side = preprocess.size
    resize = v2.Resize((side, side), interpolation, antialias=True)
    if preprocess.fit == "stretch":
        return v2.Compose([v2.Lambda(partial(_shorten, side, interpolation)), resize])
    # Crop first: resizing the short side of a very narrow picture to ``side`` would make its long
    # side thousands of pixels long.
    return v2.Compose([v2.Lambda(_centre_square), resize])


def _shorten(
    side: int, interpolation: InterpolationMode, picture: Image.Image | Tensor
) -> Image.Image | Tensor:
    """Return a very tall narrow picture at its final height, and other pictures unchanged."""
    # Resizing widens all rows first, so a narrow column would become a wide picture of its whole
    # height on the way.
    height, width = v2.functional.get_size(picture)
    if width >= side or height <= TALL * side:
        return picture
    short: Image.Image | Tensor = v2.functional.resize(
        picture, [side, width], interpolation, antialias=True
    )
    return short


def _centre_square(picture: Image.Image | Tensor) -> Image.Image | Tensor:
    """Return the largest square in the middle of a picture, or of every picture (..., H, W)."""
    side = min(v2.functional.get_size(picture))
    square: Image.Image | Tensor = v2.functional.center_crop(picture, [side, side])
    return square


def build_reader(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """Return a function from an RGB image to the tower's pixels, uint8 (3, size, size)."""
    resize = build_resize(preprocess)
    if preprocess.interpolation == "lanczos":  # only Pillow implements this filter
        return lambda picture: to_pixels(resize(picture))
    # torch resamples uint8 faster than Pillow, and some pixels differ by one level.
    return lambda picture: resize(to_pixels(picture))


def build_eval_transform(preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """Return a function from an RGB image to a normalised float32 tensor (3, size, size)."""
    read = build_reader(preprocess)
    return lambda picture: normalise(read(picture)[None], preprocess)[0]


def normalise(pictures: Tensor, preprocess: Preprocess) -> Tensor:
    """Return uint8 pictures (B, 3, H, W) normalised for the tower, float32 (B, 3, H, W)."""
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocess.mean, device=pictures.device).view(shape)
    std = torch.tensor(preprocess.std, device=pictures.device).view(shape)
    return (pictures.float() / 255.0 - mean) / std


def to_pixels(picture: Image.Image) -> Tensor:
    """Return an RGB PIL image as uint8 (3, H, W)."""
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels
