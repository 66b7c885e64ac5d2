"""Pictures from files, bytes or memory, as the batches that a network reads."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from PIL import Image
from torch import Tensor

from vision.errors import ImageError, InvalidArgumentError
from vision.images import decode, load
from vision.transforms import Preprocess, build_reader, normalise

ImageSource: TypeAlias = Image.Image | bytes | Path


def prepared_batches(
    images: Iterable[ImageSource],
    preprocess: Preprocess,
    *,
    batch_size: int,
    progress: bool = False,
) -> Iterator[Tensor]:
    """Yield prepared pictures (B, 3, H, W); the next batch is decoded meanwhile, in threads.

    Args:
        images: Pictures, files' bytes or paths; read no further than two batches ahead.
        preprocess: How each is made square and normalised.
        batch_size: Pictures in a batch; the last may have fewer.
        progress: Show Lightning's progress bar.

    Raises:
        InvalidArgumentError: If batch_size is below 1.
        ImageError: If an image cannot be read; names its position.
    """
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    read = build_reader(preprocess)
    count = len(images) if isinstance(images, Sequence) else None
    numbered = enumerate(Tqdm(images, desc="pictures", total=count, disable=not progress))

    def prepare(numbered_image: tuple[int, ImageSource]) -> Tensor:
        position, image = numbered_image
        try:
            return read(open_picture(image, preprocess.size))
        except ImageError as error:
            raise ImageError(f"image {position}: {error}", position) from error

    with ThreadPoolExecutor() as threads:
        coming = [threads.submit(prepare, one) for one in islice(numbered, batch_size)]
        while coming:
            current = coming
            coming = [threads.submit(prepare, one) for one in islice(numbered, batch_size)]
            yield normalise(torch.stack([future.result() for future in current]), preprocess)


def open_picture(image: ImageSource, size: int) -> Image.Image:
    """Return the picture, RGB and upright, at least twice ``size`` pixels on its smaller side.

    Twice the size leaves enough pixels for the resampling filter to work with; a smaller picture
    stays as it is.
    """
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, bytes):
        return decode(image, min_side=2 * size)
    return load(image, min_side=2 * size)
