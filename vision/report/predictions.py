"""Predictions of a tower for pictures and, optionally, for corrupted copies of them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from PIL import Image

from vision.arrays import Floats, Ints
from vision.dataset import Samples
from vision.errors import ImageError
from vision.images import load
from vision.report.robustness import corrupt, shrink
from vision.tower import VisionTower


class Predictions(NamedTuple):
    """Predictions of a tower for the pictures that could be read."""

    rows: Ints  # rows of the readable pictures, (n,)
    rejected: dict[str, str]  # the other pictures, with the reason
    probabilities: dict[str, Floats]  # class probabilities (n, C) of every target
    corrupted: dict[str, Ints]  # predicted classes of V corruptions of each picture, (n, V)


class _Picture(NamedTuple):
    row: int
    versions: list[Image.Image]  # the picture itself, then its corruptions


def collect_predictions(
    tower: VisionTower,
    samples: Samples,
    *,
    seed: int | None,
    batch_size: int,
    device: torch.device | str | None,
    progress: bool,
) -> Predictions:
    """Return the tower's predictions for all pictures, each of which is decoded once.

    Args:
        tower: Tower that predicts.
        samples: Pictures to predict. Their labels are not used.
        seed: Random seed of the corruptions, which do not depend on the batch. None leaves
            corruptions out.
        batch_size: Pictures in one pass.
        device: Device to move the tower to and to compute on. None leaves the tower in place.
        progress: Whether to show Lightning's progress bar.

    Raises:
        ImageError: If no picture can be read.
    """
    rows: list[int] = []
    rejected: dict[str, str] = {}
    clean: list[dict[str, Floats]] = []
    corrupted: list[dict[str, Ints]] = []
    for batch in _read(samples, tower.preprocess.size, seed, batch_size, progress, rejected):
        rows += [picture.row for picture in batch]
        probabilities = _predict(tower, batch, batch_size, device)  # (B, 1 + V, C)
        clean.append({name: p[:, 0] for name, p in probabilities.items()})
        # Only predicted classes are kept for corruptions: probabilities would be 18 times as many.
        corrupted.append({name: p[:, 1:].argmax(axis=2) for name, p in probabilities.items()})
    if not rows:
        reasons = list(rejected.values())
        raise ImageError(
            f"none of {len(samples)} pictures can be read" + (f": {reasons[0]}" if reasons else "")
        )
    return Predictions(
        rows=np.array(rows, dtype=np.int64),
        rejected=rejected,
        probabilities={name: np.concatenate([p[name] for p in clean]) for name in tower.classes},
        corrupted={name: np.concatenate([p[name] for p in corrupted]) for name in tower.classes},
    )


def _read(
    samples: Samples,
    size: int,
    seed: int | None,
    batch_size: int,
    progress: bool,
    rejected: dict[str, str],
) -> Iterator[list[_Picture]]:
    """Yield the readable pictures in batches, and add the others to ``rejected``."""

    def read(row: int) -> _Picture | ImageError:
        try:
            # The same resolution as the tower itself would read.
            picture = load(samples.images[row], samples.root, min_side=2 * size)
        except ImageError as error:
            return error
        if seed is None:
            return _Picture(row, [picture])
        corruptions = corrupt(shrink(picture, size), np.random.default_rng([seed, row]))
        return _Picture(row, [picture, *corruptions])

    with (
        ThreadPoolExecutor() as threads,
        Tqdm(desc="pictures", total=len(samples), disable=not progress) as bar,
    ):
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            results = list(threads.map(read, rows))
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, ImageError):
                    rejected[str(samples.images[row])] = str(result)
            readable = [result for result in results if isinstance(result, _Picture)]
            if readable:
                yield readable
            bar.update(len(rows))


def _predict(
    tower: VisionTower,
    pictures: Sequence[_Picture],
    batch_size: int,
    device: torch.device | str | None,
) -> dict[str, Floats]:
    """Return the probabilities (B, 1 + V, C) of every version of every picture, per target."""
    versions = [version for picture in pictures for version in picture.versions]
    probabilities = tower.predict_proba(versions, batch_size=batch_size, device=device)
    return {name: p.reshape(len(pictures), -1, p.shape[1]) for name, p in probabilities.items()}
