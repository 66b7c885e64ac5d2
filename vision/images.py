"""The safety boundary for images: untrusted bytes in, an upright RGB image or an ImageError out.

The bytes decide what the format is; the file's extension and any declared type are ignored. The
size in the header is checked before any pixel is decoded, and metadata never reaches the decoder.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from vision.cut_jpeg import end_cut_jpeg, is_cut
from vision.errors import ImageError
from vision.file_formats import Format, describe, recognise
from vision.metadata import strip_metadata
from vision.orientation import exif_orientation
from vision.rgb import BANDS, Bands, drop_empty_alpha, to_rgb, to_rgb_in_bands, turn_upright

__all__ = ["MAX_BYTES", "MAX_PIXELS", "ImageError", "decode", "load", "load_each"]

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
FORMATS: tuple[Format, ...] = get_args(Format)
# Image.open would guess the format and print its warnings. Of several pictures in one JPEG, as
# phones write them, the first is read.
_OPEN: Mapping[Format, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}


def decode(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
    bands: Bands = BANDS,
) -> Image.Image:
    """Return the image in these bytes: RGB, upright, first frame, transparent parts on white.

    CMYK, palette, greyscale and 16-bit images are converted to 8-bit RGB. Metadata is ignored, be
    it sound or broken, except for an orientation that makes sense.

    Args:
        data: Content of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file.
        max_bytes: Largest number of bytes accepted.
        max_pixels: Largest width times height accepted.
        min_side: Smallest side that the result needs. A larger JPEG may be decoded at a half, a
            quarter or an eighth of its size, and the pixels of another large image may be averaged,
            which is much faster. None keeps the size.
        bands: Size above which images are converted in bands, and size of a band.

    Raises:
        ImageError: If the data is empty, too long, not an image, or has too many pixels, or if too
            much of it is missing (``vision.cut_jpeg``).
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
    file_format = recognise(data)
    if file_format is None:
        raise ImageError(
            f"image cannot be decoded: got {describe(data)}; wanted one of {', '.join(FORMATS)}"
        )
    # Pillow raises a dozen unrelated exceptions on damaged files, from SyntaxError to struct.error.
    try:
        return _read_each(data, file_format, min_sides, max_pixels, bands)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image must have at most {max_pixels} pixels: {error}") from error
    except Exception as error:
        raise ImageError(
            f"image cannot be decoded: got {len(data)} bytes of a damaged {file_format} file "
            f"({error}); copy or download it again"
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
        raise ImageError(f"{str(path)!r}: {error}") from error


class _Source(NamedTuple):
    """A file without metadata, which can be decoded at several scales."""

    data: bytes
    file_format: Format
    orientation: int
    rows: float  # share of the rows that the file has


class _Scale(NamedTuple):
    """How an opened image is reduced; images of one file and one scale have the same pixels."""

    size: tuple[int, int]  # at which the file is decoded
    factor: int | None  # by which each side is then reduced, in bands; None for neither


def _read_each(
    data: bytes,
    file_format: Format,
    min_sides: Sequence[int | None],
    max_pixels: int,
    bands: Bands,
) -> list[Image.Image]:
    """Return the image in 8-bit RGB and upright for each ``min_side``, each scale decoded once."""
    source = _prepare(data, file_format, max_pixels)
    of_scale: dict[_Scale, Image.Image] = {}
    images = []
    for min_side in min_sides:
        with _open(source.data, file_format, max_pixels) as picture:
            if min_side is not None:
                picture.draft("RGB", (min_side, min_side))
            scale = _choose_scale(picture, min_side, bands)
            if scale not in of_scale:
                of_scale[scale] = _read(picture, source, scale, bands)
            images.append(of_scale[scale])
    return images


def _prepare(data: bytes, file_format: Format, max_pixels: int) -> _Source:
    data, orientation = strip_metadata(data, file_format)
    if file_format != "JPEG" or not is_cut(data):
        return _Source(data, file_format, orientation, 1.0)
    with _open(data, file_format, max_pixels):  # it is decoded next, so its size is checked
        ended = end_cut_jpeg(data)
    return _Source(ended.data, file_format, orientation, ended.rows)


def _open(data: bytes, file_format: Format, max_pixels: int) -> ImageFile.ImageFile:
    """Return an image of which only the header has been read.

    Raises:
        ImageError: If it has too many pixels.
    """
    picture = _OPEN[file_format](io.BytesIO(data))
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageError(
            f"image must have at most {max_pixels} pixels, got {width} x {height}; "
            "send a smaller picture"
        )
    return picture


def _choose_scale(picture: Image.Image, min_side: int | None, bands: Bands) -> _Scale:
    """Return the scale of an image that was opened for ``min_side``."""
    if picture.width * picture.height <= bands.larger_than:
        return _Scale(picture.size, None)
    factor = 1 if min_side is None else max(1, min(picture.size) // min_side)
    return _Scale(picture.size, factor)


def _read(picture: Image.Image, source: _Source, scale: _Scale, bands: Bands) -> Image.Image:
    """Return an opened image in 8-bit RGB and upright."""
    picture.load()
    opened = picture if source.file_format != "BMP" else drop_empty_alpha(picture)
    if scale.factor is None:
        rgb = to_rgb(opened)
    else:
        rgb = to_rgb_in_bands(opened, scale.factor, bands.pixels)
    if source.rows < 1:
        rgb = rgb.crop((0, 0, rgb.width, max(1, round(source.rows * rgb.height))))
    orientation = source.orientation
    if source.file_format == "AVIF":  # Pillow converts its own turns to those of EXIF
        orientation = exif_orientation(picture.info.get("exif", b"")) or 1
    rgb.info = {}
    return turn_upright(rgb, orientation)
