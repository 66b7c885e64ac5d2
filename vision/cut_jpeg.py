"""JPEGs that lack their end, as interrupted downloads leave them.

Browsers show such a picture, grey from where it ends. It is read if hardly anything is missing:
at most a tenth of its rows, which are cut off, or the last details of a progressive picture, whose
rows are all there from its first passes on. At most the end of the last row of blocks stays grey.
"""

import io
import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from PIL import JpegImagePlugin

from vision.errors import ImageError

MIN_ROWS = 0.9  # share of the rows that must be there

_END = b"\xff\xd9"
# In compressed pixels, 0xFF comes before a zero or a restart marker.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_COEFFICIENTS = 64
_GREY = (127, 129)  # what the decoder puts where the data has ended


class Ended(NamedTuple):
    """A JPEG with the end that it lacked."""

    data: bytes
    rows: float  # share of the rows that were there


def is_cut(jpeg: bytes) -> bool:
    """Return whether a JPEG without metadata has no end."""
    return jpeg.rfind(_END) < 0


def end_cut_jpeg(jpeg: bytes) -> Ended:
    """Return a JPEG without an end as one that can be decoded.

    Args:
        jpeg: File without metadata, of a size that may be decoded.

    Raises:
        ImageError: If too much is missing.
    """
    ended = jpeg.rstrip(b"\0") + _END  # zeros: room that was made for bytes that never came
    passes = _Passes.read(jpeg)
    if passes.are_enough:
        return Ended(ended, 1.0)
    if passes.n_whole or passes.is_progressive:
        raise ImageError(_refusal("only its first passes are"))
    with JpegImagePlugin.JpegImageFile(io.BytesIO(ended)) as picture:
        if not picture.tile:
            raise ImageError(_refusal("none of its pixels is"))
        picture.load()
        there, height = _count_rows(np.asarray(picture)), picture.height
    if there < MIN_ROWS * height:
        raise ImageError(_refusal(f"{there} of {height} rows are"))
    return Ended(ended, there / height)


def _refusal(there: str) -> str:
    return (
        f"image cannot be decoded: got a JPEG that ends too early: {there} there, wanted "
        f"{MIN_ROWS:.0%} of its rows or more; copy or download the file again"
    )


def _count_rows(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    """Return the number of rows above the grey that stands for missing pixels."""
    rows = pixels.reshape(len(pixels), -1)
    is_grey = (rows.min(axis=1) >= _GREY[0]) & (rows.max(axis=1) <= _GREY[1])
    return int(np.flatnonzero(~is_grey).max(initial=-1)) + 1


class _Passes(NamedTuple):
    """The passes over the pixels that a JPEG has from beginning to end."""

    is_progressive: bool
    n_whole: int
    are_enough: bool  # each coefficient of each channel was in one of them

    @classmethod
    def read(cls, jpeg: bytes) -> "_Passes":
        channels, is_progressive, n_whole = 0, False, 0
        seen: dict[int, set[int]] = defaultdict(set)
        of_pass: tuple[bytes, set[int]] | None = None
        at = 2
        while found := _MARKER.search(jpeg, at):
            marker, start = jpeg[found.start() + 1], found.end() + 2
            end = found.end() + int.from_bytes(jpeg[found.end() : start])
            content = jpeg[start:end]
            if of_pass is not None:  # the pass before has ended, since a marker comes after it
                n_whole += 1
                for channel in of_pass[0]:
                    seen[channel] |= of_pass[1]
                of_pass = None
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                is_progressive, channels = marker in _PROGRESSIVE, (content[5:6] or b"\0")[0]
            elif marker == 0xDA and len(content) >= 4:
                of_pass = _read_pass(content)
            at = max(end, start)
        whole = [channel for channel, own in seen.items() if len(own) == _COEFFICIENTS]
        return cls(is_progressive, n_whole, are_enough=0 < channels <= len(whole))


def _read_pass(header: bytes) -> tuple[bytes, set[int]]:
    """Return the channels of a pass, and the coefficients that it gives for the first time."""
    first, last, precision = header[-3:]
    is_first_time = precision >> 4 == 0
    return header[1:-3:2], set(range(first, last + 1)) if is_first_time else set()
