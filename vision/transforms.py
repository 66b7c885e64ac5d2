"""How a picture becomes the tensor a tower reads; travels with the tower."""

from typing import Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torchvision.transforms import InterpolationMode, v2

# The mean and standard deviation of ImageNet's pixels, which most published weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(BaseModel):
    """Size, normalisation and resampling that a tower was trained with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=8, le=4096, description="Height and width of the input in pixels.")
    mean: tuple[float, float, float] = Field(
        default=IMAGENET_MEAN, description="Subtracted from each colour, after scaling to 0..1."
    )
    std: tuple[float, float, float] = Field(
        default=IMAGENET_STD,
        description="Each colour is then divided by this.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        default="bicubic", description="Filter that resizes pictures."
    )
    fit: Literal["stretch", "crop"] = Field(
        default="stretch",
        description="Make a picture square by stretching all of it, or by keeping its centre.",
    )


def build_resize(preprocess: Preprocess) -> v2.Transform:
    """Return the transform from a PIL picture to the square PIL picture that the tower sees."""
    interpolation = InterpolationMode(preprocess.interpolation)
    side = preprocess.size
    if preprocess.fit == "stretch":
        return v2.Resize((side, side), interpolation, antialias=True)
    return v2.Compose([v2.Resize(side, interpolation, antialias=True), v2.CenterCrop((side, side))])


def build_eval_transform(preprocess: Preprocess) -> v2.Transform:
    """Return the transform from an RGB PIL picture to a normalised float32 tensor (3, H, W)."""
    return v2.Compose(
        [
            build_resize(preprocess),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(preprocess.mean, preprocess.std),
        ]
    )


def normalise(pictures: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Return uint8 pictures (B, 3, H, W) as the tower reads them, float32 (B, 3, H, W)."""
    shape = (1, 3, 1, 1)
    mean = torch.tensor(preprocess.mean, device=pictures.device).view(shape)
    std = torch.tensor(preprocess.std, device=pictures.device).view(shape)
    return (pictures.float() / 255.0 - mean) / std


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """Return an RGB PIL picture as uint8 (3, H, W)."""
    pixels: torch.Tensor = v2.functional.pil_to_tensor(picture)
    return pixels
