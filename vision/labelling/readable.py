"""Pictures for a tower, with unreadable files left out."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image

from vision.dataset import Rejected
from vision.errors import ImageError
from vision.images import load
from vision.transforms import Preprocess

logger = logging.getLogger(__name__)

READ_TOGETHER = 16


class Readable:
    """An iterable of the pictures that can be read.

    ``VisionTower.embed`` and ``predict`` refuse a whole list for one damaged picture. With this in
    place of the list, they return a result for every picture in ``rows``.

    Args:
        images: Picture files, relative to root where root is given.
        root: Folder that every picture must be in.
        preprocess: Preparation of the tower that reads the pictures.

    Attributes:
        rows: Indices of the pictures that could be read, so far.
        rejected: Pictures that could not be read, so far.
    """

    def __init__(self, images: Sequence[Path], root: Path | None, preprocess: Preprocess) -> None:
        self.images, self.root, self.preprocess = images, root, preprocess
        self.rows: list[int] = []
        self.rejected: list[Rejected] = []

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield each readable picture, and fill ``rows`` and ``rejected`` on the way."""
        self.rows, self.rejected = [], []

        def read(row: int) -> Image.Image | ImageError:
            try:
                # Twice the size leaves enough pixels for the resampling filter to work with.
                return load(self.images[row], self.root, min_side=2 * self.preprocess.size)
            except ImageError as error:
                return error

        upcoming = iter(range(len(self.images)))
        with ThreadPoolExecutor() as threads:
            while rows := list(islice(upcoming, READ_TOGETHER)):
                for row, result in zip(rows, threads.map(read, rows), strict=True):
                    if isinstance(result, ImageError):
                        logger.warning("%r is left out: %s", str(self.images[row]), result)
                        self.rejected.append(Rejected(self.images[row], str(result)))
                    else:
                        self.rows.append(row)
                        yield result
