"""Words on a picture, such as the name of a brand on a package."""

import hashlib
import importlib.util
import math
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.batches import ImageSource, open_picture
from vision.errors import MissingExtraError

if TYPE_CHECKING:
    from rapidocr import RapidOCR

Lines: TypeAlias = tuple[str, ...]  # of letters, as they were read on one picture


class ReadLine(NamedTuple):
    """A line of letters on a picture, and how sure the network is of them (0 to 1)."""

    text: str
    probability: float  # mean over the letters, as the network states it


PACKAGE = "rapidocr"
INSTALL = "pip install 'vitrine-recsys[ocr]'"
MAX_SIDE = 640  # pixels; a larger picture is reduced
MAX_ENLARGED = 2.0  # factor for a small picture, whose letters are too small for the reader
MAX_LINES = 40  # lines that are read of a picture, the highest letters first
MIN_CONFIDENCE = 0.5
MAX_REMEMBERED = 4_096  # pictures, by their content
_PARTS = ("Det", "Cls", "Rec")  # networks that find lines, turn them upright and read them
_STEP = 32  # the detector takes sides that are multiples of it


def can_read_words() -> bool:
    """Return whether the packages that read words are installed."""
    return all(importlib.util.find_spec(name) is not None for name in (PACKAGE, "onnxruntime"))


def shared_reader() -> "WordReader | None":
    """Return the reader that all callers of this process share; None without the packages."""
    return _make_shared() if can_read_words() else None


def require_reader() -> "WordReader":
    """Return the reader that all callers of this process share.

    Raises:
        MissingExtraError: If RapidOCR or onnxruntime is not installed.
    """
    return shared_reader() or WordReader()


@lru_cache(maxsize=1)
def _make_shared() -> "WordReader":
    return WordReader()


class WordReader:
    """Reads lines of Latin and Chinese letters, with PP-OCR as RapidOCR packages it.

    The networks are files of the installed package. They are loaded for the first picture, and
    nothing is downloaded. A picture takes a bounded time: it is reduced to ``MAX_SIDE``, of its
    lines ``MAX_LINES`` are read, and all of it happens on one thread. Several threads may read at
    the same time. The lines of the last pictures are remembered.

    Args:
        max_remembered: Number of pictures whose lines are remembered.

    Raises:
        MissingExtraError: If RapidOCR or onnxruntime is not installed.
    """

    def __init__(self, *, max_remembered: int = MAX_REMEMBERED) -> None:
        if not can_read_words():
            raise MissingExtraError(f"reading words needs rapidocr: {INSTALL}")
        self._networks = _load_reader()
        self._max_remembered = max_remembered
        self._remembered: OrderedDict[str, tuple[ReadLine, ...]] = OrderedDict()
        self._access = Lock()  # to what is remembered

    @property
    def key(self) -> str:
        """Text that changes where the same picture may give other words."""
        bounds = (MAX_SIDE, MAX_ENLARGED, MAX_LINES, MIN_CONFIDENCE)
        return f"{PACKAGE} {version(PACKAGE)} {bounds}"

    def read(self, image: ImageSource) -> Lines:
        """Return the lines on a picture, the highest letters first; empty without letters.

        The same picture is read once, as long as it is remembered. Letters of a script that the
        networks do not know give no lines, or lines without sense.

        Args:
            image: Picture as a path, the bytes of a file or an opened image.

        Raises:
            ImageError: If the image cannot be read.
        """
        return texts_of(self.read_lines(image))

    def read_lines(self, image: ImageSource) -> tuple[ReadLine, ...]:
        """Return what ``read`` does, each line with its probability; errors as there."""
        picture = open_picture(image, MAX_SIDE // 2)
        key = content_key(picture)
        with self._access:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return self._remembered[key]
        lines = self._read(picture)
        with self._access:
            self._remembered[key] = lines
            while len(self._remembered) > self._max_remembered:
                self._remembered.popitem(last=False)
        return lines

    def _read(self, picture: Image.Image) -> tuple[ReadLine, ...]:
        from rapidocr.main import RapidOCRError

        reader = self._networks
        try:
            lines, _ = reader.detect_and_crop(_prepare(picture), {})
            heights = [min(line.shape[:2]) for line in lines]
            highest = sorted(range(len(lines)), key=lambda line: -heights[line])[:MAX_LINES]
            upright, _ = reader.cls_and_rotate([lines[line] for line in highest])
            read = reader.recognize_txt(upright)
        except RapidOCRError:  # what it raises for a picture without a line
            return ()
        pairs = zip(read.txts or (), read.scores or (), strict=True)
        sure = (ReadLine(text.strip(), score) for text, score in pairs if score >= MIN_CONFIDENCE)
        return tuple(line for line in sure if line.text)


def texts_of(lines: Iterable[ReadLine]) -> Lines:
    """Return lines without their probabilities."""
    return tuple(line.text for line in lines)


def _load_reader() -> "RapidOCR":
    """Return the networks, each on one thread, from the files of the package."""
    import rapidocr

    models = Path(rapidocr.__file__).parent / "models"
    settings: dict[str, Any] = {
        # Without these paths it would look for them, and download what it does not find.
        **{f"{part}.model_path": str(_find_model(models, part)) for part in _PARTS},
        "Global.log_level": "critical",
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Det.limit_type": "max",
        "Det.limit_side_len": MAX_SIDE,
    }
    return rapidocr.RapidOCR(params=settings)


def content_key(picture: Image.Image) -> str:
    """Return a hash of the pixels of a picture."""
    size = f"{picture.mode} {picture.size} ".encode()
    return hashlib.sha256(size + picture.tobytes()).hexdigest()


def _find_model(folder: Path, part: str) -> Path:
    found = sorted(folder.glob(f"*_{part.lower()}_*.onnx"))
    if not found:
        raise MissingExtraError(
            f"{folder} must hold the networks of rapidocr, got none for {part}; install it again: "
            f"{INSTALL}"
        )
    return found[-1]


def _prepare(picture: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 3), blue first, at a size that fits the detector."""
    scale = min(MAX_ENLARGED, MAX_SIDE / max(picture.size))
    width, height = (max(1, round(scale * side)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    sides = [max(_STEP, math.ceil(side / _STEP) * _STEP) for side in (width, height)]
    canvas = Image.new("RGB", (sides[0], sides[1]), "white")
    canvas.paste(resized)
    return np.ascontiguousarray(np.asarray(canvas)[:, :, ::-1])
