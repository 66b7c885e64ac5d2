"""The safety boundary for images: untrusted bytes in, an upright RGB image or an ImageError out.

The bytes decide what the format is; the file's extension and any declared type are ignored. The
size in the header is checked before any pixel is decoded.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vision.errors import ImageError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "ImageError", "decode", "load", "load_each"]

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
# A closed list: some of Pillow's other formats run external programs (EPS), and nobody photographs
# products in the rest. JPEG includes the multi-picture files that phones write.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


class Bands(NamedTuple):
    """How large images are converted to RGB: in horizontal bands, which saves memory.

    Converting makes several copies of the pixels, 160 MB each for an image of ``MAX_PIXELS``.
    """

    larger_than: int = 4_000_000  # images with more pixels than this are converted in bands
    pixels: int = 500_000  # in one band, approximately


BANDS = Bands()


def decode(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
    bands: Bands = BANDS,
) -> Image.Image:
    """Return the image in these bytes: RGB, upright, first frame, transparent parts on white.

    CMYK, palette, greyscale and 16-bit images are converted to 8-bit RGB.

    Args:
        data: Content of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        max_bytes: Largest number of bytes accepted.
        max_pixels: Largest width times height accepted.
        min_side: Smallest side that the result needs. A larger JPEG may be decoded at a half, a
            quarter or an eighth of its size, and the pixels of another large image may be averaged,
            which is much faster. None keeps the size.
        bands: Size above which images are converted in bands, and size of a band.

    Raises:
        ImageError: If the data is empty, too long, truncated, not an image, or has too many pixels.
    """
    (image,) = _decode_each(
        data, [min_side], max_bytes=max_bytes, max_pixels=max_pixels, bands=bands
    )
    return image


def _decode_each(
    data: bytes,
    min_sides: Sequence[int | None],
    *,
    max_bytes: int,
    max_pixels: int,
    bands: Bands,
) -> list[Image.Image]:
    """Return the image once for each ``min_side``, as ``decode`` does."""
    if not data:
        raise ImageError(f"image is empty: got 0 bytes, wanted one of {', '.join(FORMATS)}")
    if len(data) > max_bytes:
        raise ImageError(
            f"image must be at most {max_bytes} bytes, got {len(data)}; send a smaller picture"
        )
    # Pillow raises a dozen unrelated exceptions on damaged files, from SyntaxError to struct.error.
    # They become ImageError here. Its decompression bomb warning may be raised as an error, too.
    try:
        return _read_each(data, min_sides, max_pixels, bands)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image must have at most {max_pixels} pixels: {error}") from error
    except Exception as error:
        # Pillow's own message has the address of the buffer, which differs from run to run.
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
    """Return the image in a file, decoded as by ``decode``.

    Args:
        path: Image file, relative to root where root is given.
        root: Folder that the file must be in after every link is followed.
        max_bytes: Largest file accepted.
        max_pixels: Largest width times height accepted.
        min_side: Smallest side that the result needs, see ``decode``.

    Raises:
        ImageError: If the file is missing, is outside root or is not an image that we accept.
    """
    (image,) = load_each(path, root, [min_side], max_bytes=max_bytes, max_pixels=max_pixels)
    return image


def load_each(
    path: str | Path,
    root: str | Path | None,
    min_sides: Sequence[int | None],
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> list[Image.Image]:
    """Return the image in a file once for each of several sizes.

    Each has the pixels that ``load`` returns for that ``min_side``. The file is read once, and
    decoded once for all sizes that need the same scale.

    Args:
        path: Image file, relative to root where root is given.
        root: Folder that the file must be in after every link is followed.
        min_sides: Smallest side that each result needs, see ``decode``.
        max_bytes: Largest file accepted.
        max_pixels: Largest width times height accepted.

    Raises:
        ImageError: If the file is missing, is outside root or is not an image that we accept.
    """
    try:
        target = (Path(path) if root is None else Path(root, path)).resolve(strict=True)
        inside = root is None or target.is_relative_to(Path(root).resolve(strict=True))
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageError(f"image {str(path)!r} cannot be found: {error}") from error
    if not inside:
        raise ImageError(
            f"image {str(path)!r} is outside its root {str(root)!r}; paths must stay inside it"
        )
    # Reading a FIFO or a device might block or never end.
    if not target.is_file():
        raise ImageError(f"image {str(path)!r} must be a regular file")
    try:
        with target.open("rb") as file:
            data = file.read(max_bytes + 1)
        return _decode_each(
            data, min_sides, max_bytes=max_bytes, max_pixels=max_pixels, bands=BANDS
        )
    except (ImageError, OSError) as error:
        raise ImageError(f"{path}: {error}") from error


def _check_pixels(picture: Image.Image, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"image must have at most {max_pixels} pixels, got {width} x {height}; "
            "send a smaller picture"
        )


def _read_each(
    data: bytes, min_sides: Sequence[int | None], max_pixels: int, bands: Bands
) -> list[Image.Image]:
    """Return the image in 8-bit RGB and upright for each ``min_side``, each scale decoded once."""
    of_scale: dict[_Scale, Image.Image] = {}
    images = []
    for min_side in min_sides:
        # Only the header is read here.
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_pixels(picture, max_pixels)
            if min_side is not None:
                picture.draft("RGB", (min_side, min_side))
            scale = _choose_scale(picture, min_side, bands)
            if scale not in of_scale:
                of_scale[scale] = _read(picture, scale, bands)
            images.append(of_scale[scale])
    return images


class _Scale(NamedTuple):
    """How an opened image is reduced; images of one file and one scale have the same pixels."""

    size: tuple[int, int]  # at which the file is decoded
    factor: int | None  # by which each side is then reduced, in bands; None for neither


def _choose_scale(picture: Image.Image, min_side: int | None, bands: Bands) -> _Scale:
    """Return the scale of an image that was opened for ``min_side``."""
    if picture.width * picture.height <= bands.larger_than:
        return _Scale(picture.size, None)
    factor = 1 if min_side is None else max(1, min(picture.size) // min_side)
    return _Scale(picture.size, factor)


def _read(picture: Image.Image, scale: _Scale, bands: Bands) -> Image.Image:
    """Return an opened image in 8-bit RGB and upright."""
    picture.load()
    if scale.factor is None:
        rgb = _to_rgb(picture)
    else:
        rgb = _to_rgb_in_bands(picture, scale.factor, bands.pixels)
    # The EXIF orientation is in it.
    rgb.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def _to_rgb_in_bands(picture: Image.Image, factor: int, band_pixels: int) -> Image.Image:
    """Return 8-bit RGB with sides reduced by ``factor``, without a second copy at full size."""
    width, height = picture.size
    rows = factor * max(1, band_pixels // (factor * width))
    whole = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        band = _to_rgb(picture.crop((0, top, width, min(top + rows, height))))
        whole.paste(band.reduce(factor), (0, top // factor))
    if factor == 1:
        return whole
    # The last column and row of blocks may have fewer pixels. At full width they would shift the
    # picture by up to half a pixel of the tower's input.
    exact = (width / factor, height / factor)
    size = (round(exact[0]), round(exact[1]))
    return whole.resize(size, Image.Resampling.BICUBIC, box=(0, 0, *exact))


def _to_rgb(picture: Image.Image) -> Image.Image:
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
