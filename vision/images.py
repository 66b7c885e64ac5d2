"""The safety boundary for pictures: bytes from anyone in, an upright RGB picture or ImageError out.

The extension and any declared type are never read: the bytes decide. Sizes are checked on the
header, before any pixel is decoded.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vision.errors import ImageError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "ImageError", "decode", "load"]

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
# A closed list: Pillow's other formats include ones that run external programs (EPS) or that
# nobody photographs products in. JPEG includes the multi-picture files that phones write.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Converting takes several copies of a picture, which of one of MAX_PIXELS would be 160 MB each: one
# of more pixels than the first number is converted in bands of about as many as the second.
LARGE = 4_000_000
BAND = 500_000


def decode(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
) -> Image.Image:
    """Return the picture in these bytes: RGB, upright, transparent parts on white, first frame.

    CMYK, palette, greyscale and 16-bit pictures are converted to 8-bit RGB.

    Args:
        data: A JPEG, PNG, WebP, GIF, BMP or TIFF file.
        max_bytes: Longest data accepted.
        max_pixels: Largest width times height accepted.
        min_side: A JPEG may be decoded at a half, quarter or eighth, and pixels of another picture
            of more than ``LARGE`` be averaged, as long as neither side falls below this; much
            faster for photos larger than what is needed. None keeps all.

    Raises:
        ImageError: If the data is empty, too large, too many pixels, truncated or not a picture.
    """
    if not data:
        raise ImageError(f"image is empty: got 0 bytes, wanted one of {', '.join(FORMATS)}")
    if len(data) > max_bytes:
        raise ImageError(
            f"image must be at most {max_bytes} bytes, got {len(data)}; send a smaller picture"
        )
    # Pillow raises a dozen unrelated types on damaged files, from SyntaxError to struct.error; this
    # is the one place where they become ours. Its own bomb warning may be an error, too.
    try:
        picture = _read(data, max_pixels, min_side)
        ImageOps.exif_transpose(picture, in_place=True)
        return picture
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image must have at most {max_pixels} pixels: {error}") from error
    except Exception as error:
        # Pillow's own words name the buffer's address here, which differs from run to run.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "unknown format" if unknown else str(error)
        raise ImageError(
            f"image cannot be decoded: got {len(data)} bytes starting {data[:8]!r}, "
            f"wanted a whole {', '.join(FORMATS)} file ({reason})"
        ) from error


def load(
    path: str | Path,
    root: str | Path | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
) -> Image.Image:
    """Return the picture in a file, as ``decode`` does.

    Args:
        path: The file; relative to root when root is given.
        root: Folder that the file must be in, once every link is followed.
        max_bytes: Longest file accepted.
        max_pixels: Largest width times height accepted.
        min_side: See ``decode``.

    Raises:
        ImageError: If the file is missing, leaves root or does not hold a picture.
    """
    try:
        target = (Path(path) if root is None else Path(root, path)).resolve(strict=True)
        inside = root is None or target.is_relative_to(Path(root).resolve(strict=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageError(f"image {str(path)!r} cannot be found: {error}") from error
    if not inside:
        raise ImageError(
            f"image {str(path)!r} leaves its root {str(root)!r}; paths must stay inside it"
        )
    # Opening a FIFO or a device would block or never end.
    if not target.is_file():
        raise ImageError(f"image {str(path)!r} must be a regular file")
    try:
        with target.open("rb") as file:
            data = file.read(max_bytes + 1)
        return decode(data, max_bytes=max_bytes, max_pixels=max_pixels, min_side=min_side)
    except (ImageError, OSError) as error:
        raise ImageError(f"{path}: {error}") from error


def _check_pixels(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"image must have at most {max_pixels} pixels, got {width} x {height}; "
            "send a smaller picture"
        )


def _read(data: bytes, max_pixels: int, min_side: int | None) -> Image.Image:
    """Return the picture in 8-bit RGB, as it lies in the file."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _check_pixels(picture, max_pixels)
        if min_side is not None:
            picture.draft("RGB", (min_side, min_side))
        picture.load()
        large = picture.width * picture.height > LARGE
        rgb = _to_rgb_in_bands(picture, min_side) if large else _to_rgb(picture)
        # Among it is how the picture is to be turned.
        rgb.info = {key: value for key, value in picture.info.items() if key != "transparency"}
        return rgb


def _to_rgb_in_bands(picture: Image.Image, min_side: int | None) -> Image.Image:
    """Return 8-bit RGB without a second picture of this size, reduced as far as min_side allows."""
    width, height = picture.size
    factor = 1 if min_side is None else max(1, min(width, height) // min_side)
    rows = factor * max(1, BAND // (factor * width))
    whole = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        band = _to_rgb(picture.crop((0, top, width, min(top + rows, height))))
        whole.paste(band.reduce(factor), (0, top // factor))
    if factor == 1:
        return whole
    # The last blocks may hold fewer pixels than the others. Left as wide as these, they would move
    # the picture by up to half a pixel of what a tower sees.
    exact = (width / factor, height / factor)
    size = (round(exact[0]), round(exact[1]))
    return whole.resize(size, Image.Resampling.BICUBIC, box=(0, 0, *exact))


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Return 8-bit RGB of any mode that the accepted formats have."""
    if picture.mode == "F":
        raise ImageError("image has floating-point pixels, wanted 8 or 16 bits a channel")
    if picture.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255, which turns most pictures white.
        high_bytes = (np.asarray(picture) >> 8).clip(0, 255)
        picture = Image.fromarray(high_bytes.astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
