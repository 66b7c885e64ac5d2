"""Pixels of a run's pictures, so that each file is decoded once for the vision tower."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple

import torch

from recsys.config import TrainConfig
from recsys.data.files import writing
from vision.squares import Square, read_squares, stored_size
from vision.transforms import Fit, Preprocess


class KeptSquare(NamedTuple):
    """Size and fit of squares to keep."""

    size: int
    fit: Fit


def kept_squares(config: TrainConfig) -> tuple[KeptSquare, ...]:
    """Return the squares that a run reads after training the vision tower, in that order.

    Pretraining is not counted: its filter can differ from the tower's.
    """
    tower = config.vision
    kept = []
    if config.alignment.epochs:
        kept.append(KeptSquare(stored_size(config.alignment.train_size or tower.size), "stretch"))
    kept.append(KeptSquare(tower.size, tower.fit))  # validation, embeddings and identification
    return tuple(kept)


class _Place(NamedTuple):
    """Where the pixels of a square are in the file, and the aspect of its picture."""

    offset: int
    aspect: float


class Pictures:
    """Reads picture files as squares of pixels, and keeps those that are read again.

    Reading a square of a file also makes the squares that are read after it, from one decoding
    where they need the same scale. Their pixels are in a temporary file without a name. The system
    removes it when the run ends, even if the run is killed. It is made with the first kept square.

    Args:
        folder: Folder of the temporary file; made if needed.
        kept: Squares to keep, in the order in which they are read; another square is read before.
    """

    def __init__(self, folder: Path, kept: Sequence[KeptSquare]) -> None:
        self._folder, self._kept = folder, tuple(kept)
        self._places: dict[tuple[Path | None, Path, Preprocess], _Place] = {}
        self._reading: dict[tuple[Path | None, Path], Lock] = {}
        self._file: FileIO | None = None
        self._cleanup = contextlib.ExitStack()
        self._access = Lock()  # to the file

    def __enter__(self) -> "Pictures":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def read(self, path: Path, preprocess: Preprocess, root: Path | None = None) -> Square:
        """Return the picture in a file as a square of pixels, as ``vision.squares`` makes it.

        Several threads may read at the same time; a file that two of them want is decoded once.

        Args:
            path: Picture file, relative to root where root is given.
            preprocess: Size, fit and filter of the square.
            root: Folder that the file must be in.

        Raises:
            ImageError: If the file is not an image that we accept.
            FileAccessError: If the temporary file cannot be written.
        """
        with self._reading.setdefault((root, path), Lock()):
            place = self._places.get((root, path, preprocess))
            if place is not None:
                return self._load(place, preprocess.size)
            kept = self._kept_from(preprocess)
            missing = [one for one in kept if (root, path, one) not in self._places]
            wanted = list(dict.fromkeys([preprocess, *missing]))
            squares = dict(zip(wanted, read_squares(path, wanted, root), strict=True))
            for one in missing:
                self._places[root, path, one] = self._save(squares[one])
            return squares[preprocess]

    def _kept_from(self, preprocess: Preprocess) -> list[Preprocess]:
        """Return the kept squares with the filter of ``preprocess`` that are not read before it."""
        kept = [preprocess.model_copy(update=square._asdict()) for square in self._kept]
        return kept[kept.index(preprocess) :] if preprocess in kept else kept

    def _save(self, square: Square) -> _Place:
        """Append a square to the file and return its place."""
        rest = square.pixels.contiguous().numpy().data.cast("B")
        with self._access, writing(self._folder):
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
                self._file = self._cleanup.enter_context(file)
            offset = self._file.seek(0, os.SEEK_END)
            while rest:  # without a buffer, one call may write a part
                rest = rest[self._file.write(rest) :]
        return _Place(offset, square.aspect)

    def _load(self, place: _Place, size: int) -> Square:
        """Return the square at a place of the file."""
        assert self._file is not None, "a place is in the file"
        pixels = torch.empty((3, size, size), dtype=torch.uint8)
        rest = pixels.numpy().data.cast("B")
        with self._access:
            self._file.seek(place.offset)
            while rest:
                count = self._file.readinto(rest)
                assert count, "the file holds all of a square"
                rest = rest[count:]
        return Square(pixels, place.aspect)
