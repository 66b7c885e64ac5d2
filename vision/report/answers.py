"""What a tower answers about pictures as they are and, on request, changed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from numpy.typing import NDArray
from PIL import Image

from vision.dataset import Samples
from vision.errors import ImageError
from vision.images import load
from vision.report.robustness import corrupt, shrink
from vision.tower import VisionTower


class Answers(NamedTuple):
    """A tower's answers about the pictures that could be read."""

    rows: NDArray[np.int64]  # which pictures those are, (n,)
    rejected: dict[str, str]  # the others, and why
    probabilities: dict[str, NDArray[np.float32]]  # (n, C) of every target
    changed: dict[str, NDArray[np.int64]]  # predictions on V changes of each picture, (n, V)


class _Picture(NamedTuple):
    row: int
    versions: list[Image.Image]  # the picture itself, then its changes


def ask(
    tower: VisionTower,
    samples: Samples,
    *,
    seed: int | None,
    batch_size: int,
    device: torch.device | str | None,
    progress: bool,
) -> Answers:
    """Return the tower's answers; every picture is decoded once.

    Args:
        tower: Whom to ask.
        samples: What about; their labels are not looked at.
        seed: Of the changes, which do not depend on the batch; None asks about none.
        batch_size: Pictures in one pass.
        device: Where to compute; the tower is moved there. None leaves it where it is.
        progress: Show Lightning's progress bar.

    Raises:
        ImageError: If no picture can be read.
    """
    rows: list[int] = []
    rejected: dict[str, str] = {}
    as_is: list[dict[str, NDArray[np.float32]]] = []
    changed: list[dict[str, NDArray[np.int64]]] = []
    for batch in _read(samples, tower.preprocess.size, seed, batch_size, progress, rejected):
        rows += [picture.row for picture in batch]
        probabilities = _predict(tower, batch, batch_size, device)  # (B, 1 + V, C)
        as_is.append({name: p[:, 0] for name, p in probabilities.items()})
        # Of changed pictures only the answer is of interest: 18 times the numbers are not kept.
        changed.append({name: p[:, 1:].argmax(axis=2) for name, p in probabilities.items()})
    if not rows:
        reasons = list(rejected.values())
        raise ImageError(
            f"none of {len(samples)} pictures can be read" + (f": {reasons[0]}" if reasons else "")
        )
    return Answers(
        rows=np.array(rows, dtype=np.int64),
        rejected=rejected,
        probabilities={name: np.concatenate([p[name] for p in as_is]) for name in tower.classes},
        changed={name: np.concatenate([p[name] for p in changed]) for name in tower.classes},
    )


def _read(
    samples: Samples,
    size: int,
    seed: int | None,
    batch_size: int,
    progress: bool,
    rejected: dict[str, str],
) -> Iterator[list[_Picture]]:
    """Yield the pictures that can be read, a batch at a time, and add the others to rejected."""

    def read(row: int) -> _Picture | ImageError:
        try:
            # As much of the file as the tower itself would read.
            picture = load(samples.images[row], samples.root, min_side=2 * size)
        except ImageError as error:
            return error
        if seed is None:
            return _Picture(row, [picture])
        changes = corrupt(shrink(picture, size), np.random.default_rng([seed, row]))
        return _Picture(row, [picture, *changes])

    with (
        ThreadPoolExecutor() as threads,
        Tqdm(desc="pictures", total=len(samples), disable=not progress) as bar,
    ):
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            answers = list(threads.map(read, rows))
            for row, answer in zip(rows, answers, strict=True):
                if isinstance(answer, ImageError):
                    rejected[str(samples.images[row])] = str(answer)
            readable = [answer for answer in answers if isinstance(answer, _Picture)]
            if readable:
                yield readable
            bar.update(len(rows))


def _predict(
    tower: VisionTower,
    pictures: Sequence[_Picture],
    batch_size: int,
    device: torch.device | str | None,
) -> dict[str, NDArray[np.float32]]:
    """Return the probabilities of every version of every picture, (B, 1 + V, C) per target."""
    versions = [version for picture in pictures for version in picture.versions]
    probabilities = tower.predict(versions, batch_size=batch_size, device=device)
    return {name: p.reshape(len(pictures), -1, p.shape[1]) for name, p in probabilities.items()}
