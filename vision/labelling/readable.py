"""Pictures of a folder that may hold damaged ones, read for a tower."""

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

AHEAD = 16  # read beside each other


class Readable:
    """The pictures that can be read; the others are remembered.

    ``VisionTower.embed`` and ``predict`` refuse a whole list for one damaged picture. Given this
    instead of the list, they answer for the pictures in ``rows``.

    Args:
        images: Picture files.
        root: Folder that every picture must be in; images are then relative to it.
        preprocess: The tower's.
    """

    def __init__(self, images: Sequence[Path], root: Path | None, preprocess: Preprocess) -> None:
        self.images, self.root, self.preprocess = images, root, preprocess
        self.rows: list[int] = []
        self.rejected: list[Rejected] = []

    def __iter__(self) -> Iterator[Image.Image]:
        """Yield each picture that can be read; ``rows`` and ``rejected`` grow on the way."""
        self.rows, self.rejected = [], []

        def read(row: int) -> Image.Image | ImageError:
            try:
                # Twice the size leaves enough pixels for the resampling filter to work with.
                return load(self.images[row], self.root, min_side=2 * self.preprocess.size)
            except ImageError as error:
                return error

        coming = iter(range(len(self.images)))
        with ThreadPoolExecutor() as threads:
            while rows := list(islice(coming, AHEAD)):
                for row, answer in zip(rows, threads.map(read, rows), strict=True):
                    if isinstance(answer, ImageError):
                        logger.warning("%s is left out: %s", self.images[row], answer)
                        self.rejected.append(Rejected(self.images[row], str(answer)))
                    else:
                        self.rows.append(row)
                        yield answer
