"""Embeddings of many picture files, with JPEGs decoded by the GPU where there is one."""

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vision.arrays import Floats
from vision.deploy.gpu_decoder import GpuDecoder, Picture
from vision.errors import InvalidArgumentError
from vision.precision import Precision, autocast
from vision.tower import VisionTower
from vision.transforms import normalise

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def embed_files(
    tower: VisionTower,
    paths: Sequence[Path],
    *,
    device: torch.device | str,
    batch_size: int = 256,
    precision: Precision = "auto",
    compile: bool = False,
) -> Floats:
    """Return unit-length embeddings of picture files, float32 (N, D), in the order of the paths.

    On a CPU this is ``tower.embed``. A GPU decodes (nvJPEG) and resizes one batch while the network
    reads the one before. The CPU decodes the rest, and their number is logged: formats other than
    JPEG, JPEGs that are greyscale, CMYK, rotated by EXIF or truncated, JPEGs that the GPU refuses,
    and all files if the tower's filter is neither bilinear nor bicubic. The GPU decodes at full
    size and upsamples colour in its own way, so embeddings are close to those of ``tower.embed``
    and not equal.

    Args:
        tower: Tower that embeds. It is moved to the device.
        paths: Picture files.
        device: Device that decodes and computes.
        batch_size: Pictures in one pass.
        precision: Arithmetic of the network, see ``VisionTower.embed``.
        compile: Whether to compile the network first, which pays off for very many pictures. Only
            for a GPU.

    Raises:
        ImageError: If a file cannot be read. The message has its position.
        InvalidArgumentError: If batch_size is below 1, or compile is true on a CPU.
    """
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    place = torch.device(device)
    if place.type == "cuda":
        # A compiled network is compiled again for every number of rows, so all batches have one.
        decoder = GpuDecoder(tower.preprocess, place, rows=min(batch_size, len(paths)))
        network = torch.compile(embed_pixels) if compile else embed_pixels
        return embed_with_decoder(tower, paths, decoder, network=network, precision=precision)
    if compile:
        raise InvalidArgumentError(f"compile must be False on a CPU, got True on {place}")
    return tower.embed(paths, batch_size=batch_size, device=place, precision=precision)


def embed_pixels(tower: VisionTower, pixels: Tensor) -> Tensor:
    """Return embeddings (B, D) of pictures, uint8 (B, 3, H, W)."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    embeddings: Tensor = tower(normalise(pixels, tower.preprocess))
    return embeddings


def embed_with_decoder(
    tower: VisionTower,
    paths: Sequence[Path],
    decoder: GpuDecoder,
    *,
    network: Callable[[VisionTower, Tensor], Tensor] = embed_pixels,
    precision: Precision,
) -> Floats:
    """Return unit-length embeddings of picture files, float32 (N, D), on the decoder's device.

    Args:
        tower: Tower that embeds. It is moved to the device of the decoder.
        paths: Picture files.
        decoder: Decoder of the files, which counts the pictures left to the CPU.
        network: ``embed_pixels``, or a compiled form of it.
        precision: Arithmetic of the network.

    Raises:
        ImageError: If a file cannot be read. The message has its position.
    """
    parts = [np.zeros((0, tower.dim), dtype=np.float32)]
    was_training = tower.training
    tower.to(decoder.device).eval()
    try:
        with torch.inference_mode(), autocast(precision, decoder.device), warnings.catch_warnings():
            # Every call of torchvision's decoders announces their move to TorchCodec.
            warnings.filterwarnings("ignore", ".*superseded", DeprecationWarning)
            for pixels, count in _decoded_batches(decoder, paths):
                parts.append(network(tower, pixels)[:count].cpu().numpy())
    finally:
        tower.train(was_training)
    if decoder.unsuited or decoder.refused:
        logger.info(
            "the CPU decoded %d of %d pictures, and %d more that the GPU refused%s",
            decoder.unsuited,
            len(paths),
            decoder.refused,
            f", such as: {decoder.reason}" * bool(decoder.refused),
        )
    return np.concatenate(parts)


def _decoded_batches(decoder: GpuDecoder, paths: Sequence[Path]) -> Iterator[tuple[Tensor, int]]:
    """Yield pixels (rows, 3, H, W) on the device, and the number of rows that are pictures."""

    def read(numbered: tuple[int, Path]) -> Picture:
        return decoder.read(*numbered)

    def decode(pictures: list[Picture]) -> tuple[Tensor, int]:
        return decoder.decode(pictures), len(pictures)

    # One thread drives the GPU, because nvJPEG decodes one batch at a time.
    with ThreadPoolExecutor() as readers, ThreadPoolExecutor(max_workers=1) as driver:
        pictures = prefetch(read, enumerate(paths), readers, 2 * decoder.rows)
        yield from prefetch(decode, iter(lambda: [*islice(pictures, decoder.rows)], []), driver, 1)


def prefetch(
    run: Callable[[Item], Result], items: Iterable[Item], threads: ThreadPoolExecutor, ahead: int
) -> Iterator[Result]:
    """Yield the result of ``run`` for each item, in order, computed ahead of time in threads.

    Args:
        run: Function of one item.
        items: Items to compute results for.
        threads: Pool that runs the function.
        ahead: Number of items whose results may be computed before they are asked for.
    """
    upcoming: deque[Future[Result]] = deque()
    for item in items:
        upcoming.append(threads.submit(run, item))
        if len(upcoming) > ahead:
            yield upcoming.popleft().result()
    while upcoming:
        yield upcoming.popleft().result()
