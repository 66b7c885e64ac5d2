"""Batches for a network, read from files, bytes or PIL images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from PIL import Image
from torch import Tensor

from vision.errors import ImageError, InvalidArgumentError
from vision.images import decode, load
from vision.squares import ReadSquare, read_square
from vision.transforms import Preprocess, build_reader, normalise

ImageSource: TypeAlias = Image.Image | bytes | Path
T = TypeVar("T")


def prepared_batches(
    images: Iterable[ImageSource],
    preprocess: Preprocess,
    *,
    batch_size: int,
    progress: bool = False,
    read: ReadSquare = read_square,
) -> Iterator[Tensor]:
    """Yield batches of prepared images (B, 3, H, W), decoding the next batch in threads.

    Args:
        images: PIL images, file contents or paths, read at most two batches ahead.
        preprocess: Size, fit and normalisation of the images.
        batch_size: Images in a batch; the last batch may have fewer.
        progress: Whether to show Lightning's progress bar.
        read: Reader of the images that are paths.

    Raises:
        InvalidArgumentError: If batch_size is below 1, or ``images`` is a single image.
        ImageError: If an image cannot be read. The message has its position.
    """
    to_square = build_reader(preprocess)

    def prepare(image: ImageSource) -> Tensor:
        if isinstance(image, Path):
            return read(image, preprocess).pixels
        return to_square(open_picture(image, preprocess.size))

    for squares in read_batches(images, prepare, batch_size=batch_size, progress=progress):
        yield normalise(torch.stack(squares), preprocess)


def read_batches(
    images: Iterable[ImageSource],
    prepare: Callable[[ImageSource], T],
    *,
    batch_size: int,
    progress: bool = False,
) -> Iterator[list[T]]:
    """Yield batches of what ``prepare`` makes of each image, reading the next batch in threads.

    Args:
        images: PIL images, file contents or paths, read at most two batches ahead.
        prepare: Function that reads an image, called from several threads.
        batch_size: Images in a batch; the last batch may have fewer.
        progress: Whether to show Lightning's progress bar.

    Raises:
        InvalidArgumentError: If batch_size is below 1, or ``images`` is a single image.
        ImageError: If ``prepare`` raises it. The message has the position of the image.
    """
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    one = isinstance(images, str | bytes | Path | Image.Image)  # letters and bytes are no images
    if one or not isinstance(images, Iterable):
        raise InvalidArgumentError(
            f"images must be a list of images, got one {type(images).__name__}; pass [image]"
        )
    count = len(images) if isinstance(images, Sequence) else None
    numbered = enumerate(Tqdm(images, desc="pictures", total=count, disable=not progress))

    def read(numbered_image: tuple[int, ImageSource]) -> T:
        position, image = numbered_image
        try:
            return prepare(image)
        except ImageError as error:
            raise ImageError(f"image {position}: {error}", position) from error

    with ThreadPoolExecutor() as threads:
        upcoming = [threads.submit(read, pair) for pair in islice(numbered, batch_size)]
        while upcoming:
            current = upcoming
            upcoming = [threads.submit(read, pair) for pair in islice(numbered, batch_size)]
            yield [future.result() for future in current]


def open_picture(image: ImageSource, size: int) -> Image.Image:
    """Return the image, RGB and upright, reduced to no less than ``2 * size`` pixels a side.

    Twice the size leaves enough pixels for the resampling filter. Smaller images keep their size.

    Raises:
        InvalidArgumentError: If it is of another type.
        ImageError: If it cannot be read.
    """
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, bytes):
        return decode(image, min_side=2 * size)
    if not isinstance(image, str | Path):
        raise InvalidArgumentError(
            f"an image must be bytes, a path or an opened image, got {type(image).__name__}"
        )
    return load(image, min_side=2 * size)
