"""Pictures that tests draw themselves, so that the right answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]

GREY: Colour = (128, 128, 128)
EXIF_ORIENTATION = 0x0112


def plain_picture(colour: Colour, *, width: int = 20, height: int = 20) -> Image.Image:
    """Return a picture of one colour."""
    return Image.new("RGB", (width, height), colour)


def coloured_square(
    colour: Colour,
    *,
    left: int,
    top: int,
    side: int,
    size: tuple[int, int] = (32, 32),
    background: Colour = GREY,
) -> Image.Image:
    """Return a square of one colour on a plain background.

    Args:
        colour: Colour of the square.
        left: Column of the square's left edge.
        top: Row of the square's top edge.
        side: Width and height of the square in pixels.
        size: Width and height of the picture.
        background: Colour around the square.
    """
    picture = Image.new("RGB", size, background)
    picture.paste(colour, (left, top, left + side, top + side))
    return picture


def smooth_picture(seed: int, *, width: int = 50, height: int = 40) -> Image.Image:
    """Return a picture of smooth random colours, which differs for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def save_jpeg(picture: Image.Image, path: Path, **options: Any) -> Path:
    """Write a JPEG that keeps colours closely, and return its path."""
    picture.save(path, **({"quality": 95, "subsampling": 0} | options))
    return path


def save_rotated_jpeg(picture: Image.Image, path: Path) -> Path:
    """Write a JPEG that lies on its side and says so in its EXIF data, and return its path."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return save_jpeg(picture.transpose(Image.Transpose.ROTATE_90), path, exif=exif)
