"""Labelled pictures, each decoded once and then read as whole batches."""

import hashlib
import logging
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from vision.arrays import Floats, Ints
from vision.errors import ImageError, InvalidArgumentError, TrainingError
from vision.file_states import hash_states
from vision.files import writing
from vision.squares import ReadSquare, read_square
from vision.transforms import Preprocess

logger = logging.getLogger(__name__)

UNKNOWN = -1


@dataclass(frozen=True)
class Samples:
    """Labelled pictures on disk.

    Attributes:
        images: Picture files, relative to root where root is given.
        targets: Class index of every picture for every target, int64 (n,), -1 where unknown.
        classes: Class names of every target, with the same targets in the same order.
        root: Folder that every picture must be in.
        unlabelled: More pictures under the same root, for self-supervised pretraining.
        read: Reader of the picture files, which may keep pixels from one reading to the next.
    """

    images: Sequence[Path]
    targets: Mapping[str, Ints]
    classes: Mapping[str, Sequence[str]]
    root: Path | None = None
    unlabelled: Sequence[Path] = ()
    read: ReadSquare = read_square

    def __post_init__(self) -> None:
        if list(self.targets) != list(self.classes):
            raise InvalidArgumentError(
                f"targets and classes must name the same targets in the same order, "
                f"got {list(self.targets)} and {list(self.classes)}"
            )
        for name, labels in self.targets.items():
            if labels.dtype != np.int64 or labels.shape != (len(self.images),):
                raise InvalidArgumentError(
                    f"targets[{name!r}] must be int64 ({len(self.images)},), "
                    f"got {labels.dtype} {labels.shape}"
                )
            count = len(self.classes[name])
            if labels.size and not UNKNOWN <= labels.min() <= labels.max() < count:
                raise InvalidArgumentError(
                    f"targets[{name!r}] must be between -1 and {count - 1}, "
                    f"got {labels.min()} to {labels.max()}"
                )

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """Return a digest that changes when a picture, a label or a class does.

        Pictures count by name, size and time of change.
        """
        classes = [(target, list(names)) for target, names in self.classes.items()]
        pictures = [hash_states(images, self.root) for images in (self.images, self.unlabelled)]
        digest = hashlib.sha256(repr((classes, pictures)).encode())
        for labels in self.targets.values():
            digest.update(labels.tobytes())
        return digest.hexdigest()

    def take(self, rows: Sequence[int] | Ints) -> "Samples":
        """Return the samples of these rows, with the same classes."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            images=[self.images[row] for row in chosen],
            targets={name: labels[chosen] for name, labels in self.targets.items()},
        )


class Rejected(NamedTuple):
    """A picture that was left out because it could not be read."""

    image: Path
    reason: str


class Batch(NamedTuple):
    """The stored pictures of one training step."""

    pictures: Tensor  # uint8 (B, 3, H, W)
    aspects: Tensor  # width over height before stretching, float (B,)
    targets: Tensor  # int64 (B, number of targets), -1 where unknown
    rows: Tensor  # int64 (B,), indices into images


class PictureSet(Dataset[Batch]):
    """Decoded pictures and their labels, from which several rows are read as one ``Batch``.

    Args:
        images: Picture files.
        pictures: Pixels of the pictures, uint8 (n, 3, H, W).
        aspects: Width over height before stretching, float (n,).
        targets: Labels, int64 (n, number of targets).
        rejected: Rows that could not be read, with the reason; no batch has them.
    """

    def __init__(
        self,
        images: Sequence[Path],
        pictures: Tensor,
        aspects: Tensor,
        targets: Tensor,
        rejected: Mapping[int, Rejected],
    ) -> None:
        self.images, self.pictures, self.aspects = images, pictures, aspects
        self.targets, self.rejected = targets, tuple(rejected.values())
        self.rows = torch.tensor([row for row in range(len(images)) if row not in rejected])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Batch:
        """Return a batch of one picture."""
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> Batch:
        """Return one batch of these positions; DataLoader calls this once for a whole batch."""
        rows = self.rows[torch.tensor(positions)]
        return Batch(self.pictures[rows], self.aspects[rows], self.targets[rows], rows)


class EpochShuffle(Sampler[int]):
    """A new order every epoch, which depends on seed and epoch only, so a resumed run repeats it.

    Args:
        count: Number of rows.
        seed: Random seed of all orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order: list[int] = (
            np.random.default_rng([self.seed, self.epoch]).permutation(self.count).tolist()
        )
        return iter(order)


def decode_samples(
    samples: Samples,
    preprocess: Preprocess,
    *,
    spill: Path | None,
    progress: bool,
) -> PictureSet:
    """Return every readable picture of the samples, decoded once, at the size of ``preprocess``.

    Args:
        samples: Pictures to read, with their labels.
        preprocess: Size, fit and filter of the stored pictures.
        spill: Folder for a temporary file with the pixels. None keeps them in memory.
        progress: Whether to show Lightning's progress bar.

    Raises:
        TrainingError: If no picture can be read.
        FileAccessError: If the file does not fit on the disk.
    """
    shape = (len(samples), 3, preprocess.size, preprocess.size)
    pixels = np.empty(shape, dtype=np.uint8) if spill is None else _mapped(spill, shape)
    aspects = np.ones(len(samples), dtype=np.float32)
    rejected = _read_all(samples, preprocess, pixels, aspects, progress)
    for image, reason in rejected.values():
        logger.warning("training continues without %r: %s", str(image), reason)
    if len(rejected) == len(samples):
        reasons = [reason for _, reason in rejected.values()]
        raise TrainingError(
            f"none of {len(samples)} pictures can be read" + (f": {reasons[0]}" if reasons else "")
        )
    # Pretraining has no targets, and column_stack refuses an empty list.
    columns = [*samples.targets.values()] or [np.empty((len(samples), 0), dtype=np.int64)]
    labels = np.column_stack(columns)
    return PictureSet(
        samples.images,
        torch.from_numpy(pixels),
        torch.from_numpy(aspects),
        torch.from_numpy(labels),
        rejected,
    )


def _mapped(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array of bytes in a temporary file, with room for all of it.

    The file has no name, so it goes with the array, or with the process, however that ends.
    """
    n_bytes = math.prod(shape)
    with writing(folder, needed=n_bytes), tempfile.TemporaryFile(dir=folder) as file:
        # Without room for a mapped page, the system would end the process when it is written.
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


def _read_all(
    samples: Samples,
    preprocess: Preprocess,
    pixels: NDArray[np.uint8],
    aspects: Floats,
    progress: bool,
) -> dict[int, Rejected]:
    """Fill pixels and aspects in place and return the unreadable rows with the reasons."""
    rows_of: dict[Path, list[int]] = defaultdict(list)
    for row, image in enumerate(samples.images):
        rows_of[image].append(row)

    def read(image: Path) -> Rejected | None:
        try:
            square = samples.read(image, preprocess, samples.root)
        except ImageError as error:
            return Rejected(image, str(error))
        for row in rows_of[image]:
            aspects[row] = square.aspect
            pixels[row] = square.pixels.numpy()
        return None

    # Pillow decodes and resizes without holding the interpreter lock.
    with ThreadPoolExecutor() as threads:
        failures = list(
            Tqdm(
                threads.map(read, rows_of), desc="decode", total=len(rows_of), disable=not progress
            )
        )
    failed = {failure.image: failure for failure in failures if failure is not None}
    rows = sorted(row for image in failed for row in rows_of[image])
    return {row: failed[samples.images[row]] for row in rows}
