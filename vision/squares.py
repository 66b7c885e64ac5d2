"""Picture files as the squares of pixels that networks read."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from vision.images import load_each
from vision.transforms import Preprocess, build_reader

# Pictures are stored a little larger than they are trained at, so that crops keep their detail.
STORED_OVER_TRAINED = 1.15


_reader = lru_cache(maxsize=16)(build_reader)  # building takes as long as reading a small picture


class Square(NamedTuple):
    """A picture of any shape, made square."""

    pixels: Tensor  # uint8 (3, S, S)
    aspect: float  # width over height before it was made square


class ReadSquare(Protocol):
    """Reads a picture file as :func:`read_square` does, from the file or from what was kept."""

    def __call__(self, path: Path, preprocess: Preprocess, root: Path | None = None) -> Square:
        """Return the picture in a file as a square; arguments as for :func:`read_square`."""


def read_square(path: Path, preprocess: Preprocess, root: Path | None = None) -> Square:
    """Return the picture in a file as a square of pixels.

    Args:
        path: Picture file, relative to root where root is given.
        preprocess: Size, fit and filter of the square.
        root: Folder that the file must be in.

    Raises:
        ImageError: If the file is not an image that we accept.
    """
    return read_squares(path, [preprocess], root)[0]


def read_squares(
    path: Path, preprocesses: Sequence[Preprocess], root: Path | None = None
) -> list[Square]:
    """Return the picture in a file as one square for each of several sizes and fits.

    Each square has the pixels that :func:`read_square` returns for it. The file is read once, and
    decoded once for all sizes that need the same scale.

    Args:
        path: Picture file, relative to root where root is given.
        preprocesses: Size, fit and filter of each square.
        root: Folder that the file must be in.

    Raises:
        ImageError: If the file is not an image that we accept.
    """
    # Twice the size leaves enough pixels for the resampling filter.
    images = load_each(path, root, min_sides=[2 * one.size for one in preprocesses])
    return [
        Square(_reader(preprocess)(image), image.width / image.height)
        for preprocess, image in zip(preprocesses, images, strict=True)
    ]


def stored_size(size: int) -> int:
    """Return the side of the squares that are stored for training at ``size``."""
    return round(STORED_OVER_TRAINED * size)


def stored_preprocess(preprocess: Preprocess, size: int) -> Preprocess:
    """Return how pictures are stored that are trained at ``size``.

    Crops are drawn in the shape that the picture had, whatever the shape it is stored in.
    """
    return preprocess.model_copy(update={"size": stored_size(size), "fit": "stretch"})
