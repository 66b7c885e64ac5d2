"""Corrupted pictures, as made by bad cameras, bad light and compression."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageStat

Change = Callable[[Image.Image, float, np.random.Generator], Image.Image]


class Corruption(NamedTuple):
    """One kind of corruption, at three strengths from barely visible to hard for people."""

    change: Change
    strengths: tuple[float, float, float]
    unit: str  # unit of the strengths


def shrink(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture with its shorter side at most ``side`` pixels, in the same proportions.

    The effect of a corruption then depends on the input of the tower and not on the camera.
    """
    ratio = side / min(picture.size)
    if ratio >= 1:
        return picture
    return picture.resize(
        [round(length * ratio) for length in picture.size], Image.Resampling.BICUBIC
    )


def corrupt(picture: Image.Image, generator: np.random.Generator) -> list[Image.Image]:
    """Return the picture with every corruption at every strength, in the order of ``CORRUPTIONS``.

    Adapted from Hendrycks and Dietterich (2019, https://arxiv.org/abs/1903.12261) to photos for a
    shop. There are six corruptions instead of fifteen and three strengths instead of five. Blur is
    relative to the size of the picture, brightness is multiplied as by exposure and in both
    directions, and rotation is added. Accuracy is not divided by that of another network.

    Args:
        picture: RGB picture.
        generator: Random generator for the noise and the direction of rotation.
    """
    return [
        change(picture, strength, generator)
        for change, strengths, _ in CORRUPTIONS.values()
        for strength in strengths
    ]


def blur(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Return the picture with a Gaussian blur, whose radius is in percent of the shorter side."""
    return picture.filter(ImageFilter.GaussianBlur(strength / 100 * min(picture.size)))


def add_noise(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Return the picture with Gaussian noise, whose standard deviation is in percent of white."""
    pixels = np.asarray(picture, dtype=np.float32)
    noise = generator.standard_normal(pixels.shape, dtype=np.float32) * (255 * strength / 100)
    return Image.fromarray(np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8))


def expose(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Return the picture with its light multiplied by the strength."""
    return ImageEnhance.Brightness(picture).enhance(strength)


def compress(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Return the picture after JPEG compression with this quality, 1 to 95."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(strength))
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")


def rotate(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Return the picture rotated by this many degrees, left or right, at the same size."""
    # The corners get the median colour, often the background: black would add artificial edges.
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
