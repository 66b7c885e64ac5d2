"""Pictures as bad cameras, light and channels make them; each change is a pure function."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageStat

Change = Callable[[Image.Image, float, np.random.Generator], Image.Image]


class Corruption(NamedTuple):
    """One kind of change, at three strengths from hardly visible to hard for people, too."""

    change: Change
    strengths: tuple[float, float, float]
    unit: str  # what the strengths count


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture with its shorter side at most this many pixels, in its own shape.

    What a change does then depends on what the tower sees, and not on the camera's pixels.
    """
    ratio = side / min(picture.size)
    if ratio >= 1:
        return picture
    return picture.resize(
        [round(length * ratio) for length in picture.size], Image.Resampling.BICUBIC
    )


def corrupt(picture: Image.Image, generator: np.random.Generator) -> list[Image.Image]:
    """Return the picture under every corruption and strength, in the order of ``CORRUPTIONS``.

    After Hendrycks and Dietterich (2019, https://arxiv.org/abs/1903.12261), smaller and nearer to a
    shop: six changes in place of fifteen, three strengths in place of five; blur is a share of the
    picture, brightness is multiplied as exposure is, in both directions, and rotation, which is not
    theirs, is what a hand does. Accuracy is reported as it is, not relative to another network's.

    Args:
        picture: RGB.
        generator: Source of the noise and of the direction of rotation.
    """
    return [
        change(picture, strength, generator)
        for change, strengths, _ in CORRUPTIONS.values()
        for strength in strengths
    ]


def blur(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Return the picture under a Gaussian blur of this radius, in percent of the shorter side."""
    return picture.filter(ImageFilter.GaussianBlur(strength / 100 * min(picture.size)))


def add_noise(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Return the picture with Gaussian noise, its deviation in percent of white, on each pixel."""
    pixels = np.asarray(picture, dtype=np.float32)
    noise = generator.standard_normal(pixels.shape, dtype=np.float32) * (255 * strength / 100)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def expose(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Return the picture with this many times the light."""
    return ImageEnhance.Brightness(picture).enhance(strength)


def compress(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Return the picture after a JPEG file of this quality, 1 to 95."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(strength))
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def rotate(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Return the picture turned by this many degrees, left or right, in its own frame."""
    # Black corners would be an edge that no photo has; the median is often the background.
    corners = tuple(ImageStat.Stat(picture).median)
    angle = strength * generator.choice([-1, 1])
    return picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corners)


CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption(blur, (0.5, 1.0, 2.0), "% of the side"),
    "noise": Corruption(add_noise, (5.0, 10.0, 20.0), "% of white"),
    "darker": Corruption(expose, (0.7, 0.45, 0.25), "× light"),
    "brighter": Corruption(expose, (1.3, 1.7, 2.2), "× light"),
    "JPEG": Corruption(compress, (50, 20, 8), "quality"),
    "rotation": Corruption(rotate, (5.0, 15.0, 30.0), "degrees"),
}
