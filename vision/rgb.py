"""Opened images as upright 8-bit RGB, whichever mode they have."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from vision.errors import ImageError

# What undoes each orientation of EXIF but 1, which is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Bands(NamedTuple):
    """How large images are converted to RGB: in horizontal bands, which saves memory.

    Converting makes several copies of the pixels, 160 MB each for an image of ``MAX_PIXELS``.
    """

    larger_than: int = 4_000_000  # images with more pixels than this are converted in bands
    pixels: int = 500_000  # in one band, approximately


BANDS = Bands()


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image with its EXIF orientation undone."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def drop_empty_alpha(picture: Image.Image) -> Image.Image:
    """Return an image without its alpha channel where that is 0 everywhere, as browsers read BMP.

    Programs that know no transparency leave the fourth byte of a BMP's pixels at 0.
    """
    is_empty = picture.mode == "RGBA" and picture.getchannel("A").getbbox() is None
    return picture.convert("RGB") if is_empty else picture


def to_rgb_in_bands(picture: Image.Image, factor: int, band_pixels: int) -> Image.Image:
    """Return 8-bit RGB with sides reduced by ``factor``, without a second copy at full size."""
    width, height = picture.size
    rows = factor * max(1, band_pixels // (factor * width))
    whole = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        band = to_rgb(picture.crop((0, top, width, min(top + rows, height))))
        whole.paste(band.reduce(factor), (0, top // factor))
    if factor == 1:
        return whole
    # The last column and row of blocks may have fewer pixels. At full width they would shift the
    # picture by up to half a pixel of the tower's input.
    exact = (width / factor, height / factor)
    size = (round(exact[0]), round(exact[1]))
    return whole.resize(size, Image.Resampling.BICUBIC, box=(0, 0, *exact))


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return an image in 8-bit RGB, whichever mode of the accepted formats it has."""
    if picture.mode == "F":
        raise ImageError("image has floating-point pixels, wanted 8 or 16 bits a channel")
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255, which turns most images white.
        high_bytes = (np.asarray(picture) >> 8).clip(0, 255)
        picture = Image.fromarray(high_bytes.astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
