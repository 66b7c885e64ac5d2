"""Embed many picture files; on a CUDA card, JPEGs are decoded and resized by the card, too."""

import io
import logging
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from vision.batches import open_picture
from vision.errors import ImageError, InvalidArgumentError
from vision.images import MAX_BYTES, MAX_PIXELS
from vision.precision import Precision, autocast
from vision.tower import VisionTower
from vision.transforms import Preprocess, build_reader, build_resize, normalise

logger = logging.getLogger(__name__)

# Filters that torchvision applies to tensors as Pillow does to pictures.
CARD_FILTERS = ("bilinear", "bicubic")
# Resizing holds float32: a whole batch of phone photos at once would not fit the card.
PIXELS_AT_ONCE = 64_000_000

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Picture(NamedTuple):
    """A file that was read: a JPEG that the card is to decode, or pixels."""

    position: int
    path: Path
    content: Tensor  # a whole JPEG, uint8 (n,), or resized pixels, uint8 (3, H, W)
    area: int  # width times height of the JPEG, 0 of pixels


def embed_files(
    tower: VisionTower,
    paths: Sequence[Path],
    *,
    device: torch.device | str,
    batch_size: int = 256,
    precision: Precision = "auto",
    compile: bool = False,
) -> NDArray[np.float32]:
    """Return unit-length embeddings of picture files, float32 (N, D), in the order of the paths.

    On a processor this is ``tower.embed``. On a CUDA card, the card decodes (nvJPEG) and resizes
    one batch while the network reads the one before. The processor decodes what is left: formats
    other than JPEG; JPEGs that are grey, CMYK, turned by an EXIF orientation or without an end
    marker; those that the card refuses; and all of them if the tower's filter is neither bilinear
    nor bicubic. Their number is logged. The card decodes at full scale and spreads colour in its
    own way, so the embeddings are close to those of ``tower.embed``, not equal.

    Args:
        tower: Is moved to the device.
        paths: Picture files.
        device: Where to decode and to compute.
        batch_size: Pictures in one pass.
        precision: As in ``VisionTower.embed``.
        compile: Compile the network first; pays for very many pictures, on a card only.

    Raises:
        ImageError: If a file cannot be read; names its position.
        InvalidArgumentError: If batch_size is below 1, or compile is asked for on a processor.
    """
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    place = torch.device(device)
    if place.type == "cuda":
        # A compiled network is compiled again for another number of rows, so all batches have one.
        card = Card(tower.preprocess, place, rows=min(batch_size, len(paths)))
        network = torch.compile(_embed_pixels) if compile else _embed_pixels
        return _embed_with(card, network, tower, paths, precision)
    if compile:
        raise InvalidArgumentError(f"compile must be False on a processor, got True on {place}")
    return tower.embed(paths, batch_size=batch_size, device=place, precision=precision)


class Card:
    """A device that decodes and resizes JPEGs, and counts what it left to the processor.

    Args:
        preprocess: Gives size, fit and filter.
        device: A CUDA card; in tests the processor plays it.
        rows: Rows of every batch that it gives.
    """

    def __init__(self, preprocess: Preprocess, device: torch.device, rows: int) -> None:
        self.preprocess, self.device, self.rows = preprocess, device, rows
        self.resize = build_resize(preprocess)
        # A stream beside the network's, so that neither waits for the other.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.unsuited, self.refused, self.reason = 0, 0, ""

    def read(self, position: int, path: Path) -> Picture:
        """Return a JPEG that the card is to decode, or what the processor decoded.

        Raises:
            ImageError: If the file cannot be read; names its position.
        """
        suits = self.preprocess.interpolation in CARD_FILTERS
        jpeg = read_plain_jpeg(path) if suits else None
        if jpeg is None:
            return Picture(position, path, self._decode_here(position, path), 0)
        return Picture(position, path, *jpeg)

    def pixels(self, pictures: Sequence[Picture]) -> Tensor:
        """Return pictures of the tower's size, uint8 (rows, 3, H, W), on the device.

        Args:
            pictures: At most as many as rows; rows beyond them are black.

        Raises:
            ImageError: If neither the card nor the processor can decode one; names its position.
        """
        side = self.preprocess.size
        with torch.cuda.stream(self.stream):
            pixels = torch.zeros((self.rows, 3, side, side), dtype=torch.uint8, device=self.device)
            for row, picture in enumerate(pictures):
                if picture.area == 0:
                    self.unsuited += 1
                    pixels[row] = picture.content
            for rows in _portions(pictures):
                self._fill(pixels, rows, pictures)
            self._wait()
        return pixels

    def _fill(self, pixels: Tensor, rows: Sequence[int], pictures: Sequence[Picture]) -> None:
        """Decode the JPEGs of these rows into pixels."""
        decoded = self._decode([pictures[row].content for row in rows])
        by_shape: dict[torch.Size, dict[int, Tensor]] = defaultdict(dict)
        for row, picture in zip(rows, decoded, strict=True):
            if picture is None:
                self.refused += 1
                pixels[row] = self._decode_here(pictures[row].position, pictures[row].path)
            else:
                by_shape[picture.shape][row] = picture
        for alike in by_shape.values():
            pixels[[*alike]] = self.resize(torch.stack([*alike.values()]))
        # nvJPEG writes to a stream of its own, which does not wait until memory freed here is read.
        self._wait()

    def _decode(self, jpegs: list[Tensor]) -> list[Tensor | None]:
        """Return pictures, uint8 (3, h, w); None where the card refuses."""
        try:
            pictures: list[Tensor | None] = decode_jpeg(
                jpegs, mode=ImageReadMode.RGB, device=self.device
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # One that is refused fails all.
            if len(jpegs) > 1:
                return [picture for jpeg in jpegs for picture in self._decode([jpeg])]
            self.reason = str(error)
            return [None]
        return pictures

    def _decode_here(self, position: int, path: Path) -> Tensor:
        try:
            return build_reader(self.preprocess)(open_picture(path, self.preprocess.size))
        except ImageError as error:
            raise ImageError(f"image {position}: {error}", position) from error

    def _wait(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()


def read_plain_jpeg(path: Path) -> tuple[Tensor, int] | None:
    """Return a JPEG and its width times height, None for all that ``vision.images`` has to see.

    That is what it would refuse, and what a card decodes to another picture: greyscale, CMYK and
    Adobe's RGB, pictures that lie on their side, and files cut short, whose end would be grey.

    Args:
        path: Any file.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as header:
            area = header.width * header.height
            plain = (
                header.format == "JPEG"
                and header.mode == "RGB"
                and header.info.get("adobe_transform", 1) == 1
                and header.getexif().get(ExifTags.Base.Orientation, 1) == 1
                and area <= MAX_PIXELS
                and data.endswith(b"\xff\xd9")
            )
    # Damaged headers raise a dozen unrelated types; vision.images says what is wrong with them.
    except Exception:
        return None
    return (torch.frombuffer(bytearray(data), dtype=torch.uint8), area) if plain else None


def _portions(pictures: Sequence[Picture]) -> Iterator[list[int]]:
    """Yield the rows of JPEGs, as many together as the card is to hold decoded."""
    rows: list[int] = []
    area = 0
    for row, picture in enumerate(pictures):
        if picture.area == 0:
            continue
        if rows and area + picture.area > PIXELS_AT_ONCE:
            yield rows
            rows, area = [], 0
        rows.append(row)
        area += picture.area
    if rows:
        yield rows


def _embed_with(
    card: Card,
    network: Callable[[VisionTower, Tensor], Tensor],
    tower: VisionTower,
    paths: Sequence[Path],
    precision: Precision,
) -> NDArray[np.float32]:
    parts = [np.zeros((0, tower.dim), dtype=np.float32)]
    was_training = tower.training
    tower.to(card.device).eval()
    try:
        with torch.inference_mode(), autocast(precision, card.device), warnings.catch_warnings():
            # torchvision's decoders are to move to TorchCodec, and say so at every call.
            warnings.filterwarnings("ignore", ".*superseded", DeprecationWarning)
            for pixels, count in _batches(card, paths):
                parts.append(network(tower, pixels)[:count].cpu().numpy())
    finally:
        tower.train(was_training)
    if card.unsuited or card.refused:
        logger.info(
            "the processor decoded %d of %d pictures, and %d more that the card refused%s",
            card.unsuited,
            len(paths),
            card.refused,
            f", such as: {card.reason}" * bool(card.refused),
        )
    return np.concatenate(parts)


def _embed_pixels(tower: VisionTower, pixels: Tensor) -> Tensor:
    """Return embeddings (B, D) of pictures, uint8 (B, 3, H, W)."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    embeddings: Tensor = tower(normalise(pixels, tower.preprocess))
    return embeddings


def _batches(card: Card, paths: Sequence[Path]) -> Iterator[tuple[Tensor, int]]:
    """Yield pixels (rows, 3, H, W) on the card, and how many of the rows are pictures."""

    def read(numbered: tuple[int, Path]) -> Picture:
        return card.read(*numbered)

    def decode(pictures: list[Picture]) -> tuple[Tensor, int]:
        return card.pixels(pictures), len(pictures)

    # One thread drives the card: nvJPEG has one batch at a time.
    with ThreadPoolExecutor() as readers, ThreadPoolExecutor(max_workers=1) as driver:
        pictures = _ahead(read, enumerate(paths), readers, 2 * card.rows)
        yield from _ahead(decode, iter(lambda: [*islice(pictures, card.rows)], []), driver, 1)


def _ahead(
    run: Callable[[Item], Answer], items: Iterable[Item], threads: ThreadPoolExecutor, count: int
) -> Iterator[Answer]:
    """Yield what run answers to each item, in order; threads work up to count items ahead."""
    coming: deque[Future[Answer]] = deque()
    for item in items:
        coming.append(threads.submit(run, item))
        if len(coming) > count:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()
