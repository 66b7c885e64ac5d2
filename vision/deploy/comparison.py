"""A table of size, speed and accuracy for each way to run a tower."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from vision.batches import ImageSource
from vision.dataset import UNKNOWN, PictureSet, Samples, decode_samples
from vision.deploy.compress import factorise, prune
from vision.deploy.export import INT8_FILE, MODEL_FILE, export_onnx
from vision.deploy.onnx_tower import OnnxTower
from vision.errors import InvalidArgumentError
from vision.files import writing
from vision.precision import Precision, autocast
from vision.tower import TowerOutput, VisionTower
from vision.transforms import Preprocess, normalise

EVALUATED_AT_ONCE = 64

Run: TypeAlias = Callable[[Tensor], TowerOutput]


class VariantRow(NamedTuple):
    """Size, speed and accuracy of one way to run a tower."""

    name: str
    size_mb: float  # size of the weights or of the file in 10^6 bytes
    pictures_per_s: dict[int, float]  # by batch size, for the network without decoding
    accuracy: dict[str, float]  # by target, over the pictures with a known label


class _Variant(NamedTuple):
    run: Run
    size_mb: float


def compare_variants(
    tower: VisionTower,
    samples: Samples,
    *,
    calibration: Sequence[ImageSource],
    pruned: float = 0.2,
    energy: float = 0.95,
    batch_sizes: Sequence[int] = (1, 32),
    repeats: int = 15,
) -> list[VariantRow]:
    """Return size, speed and accuracy of a tower: unchanged, compressed and exported.

    Everything runs on the CPU with torch's number of threads. The variants take turns on pictures
    in memory. Each timed pass follows an untimed one, and speeds are medians. The machine should be
    idle.

    Args:
        tower: Tower to compare. It is not changed.
        samples: Test pictures, with labels of the tower's targets.
        calibration: Pictures to calibrate int8, which are not among the test pictures.
        pruned: Share of weights set to zero, see ``prune``.
        energy: Share of the squared singular values to keep, see ``factorise``.
        batch_sizes: Numbers of pictures in a timed pass.
        repeats: Number of timed passes for each variant and batch size.

    Raises:
        MissingExtraError: If the extra ``onnx`` is not installed.
        InvalidArgumentError: If the samples have other targets or classes.
        TrainingError: If no picture can be read.
    """
    known = {target: tuple(names) for target, names in samples.classes.items()}
    if known != tower.classes:
        raise InvalidArgumentError("samples must have the targets and classes of the tower")
    pictures = decode_samples(samples, tower.preprocess, spill=None, progress=False)
    tower = copy.deepcopy(tower).cpu().eval()
    with tempfile.TemporaryDirectory() as folder, writing(Path(folder)), torch.inference_mode():
        export_onnx(tower, folder, int8_calibration=calibration)
        variants = {
            "float32": _eager(tower, "32-true"),
            "bfloat16": _eager(tower, "bf16-mixed"),
            f"pruned {pruned:.0%}": _eager(prune(tower, pruned), "32-true"),
            f"factorised {energy:.0%}": _eager(factorise(tower, energy), "32-true"),
            "onnx float32": _exported(folder, int8=False),
            "onnx int8": _exported(folder, int8=True),
        }
        runs = {name: variant.run for name, variant in variants.items()}
        speeds = {size: _speeds(runs, tower.preprocess, size, repeats) for size in batch_sizes}
        return [
            VariantRow(
                name,
                variant.size_mb,
                {size: by_name[name] for size, by_name in speeds.items()},
                _accuracy(variant.run, pictures, tower),
            )
            for name, variant in variants.items()
        ]


def _eager(tower: VisionTower, precision: Precision) -> _Variant:
    def run(images: Tensor) -> TowerOutput:
        with autocast(precision, images.device):
            return tower.outputs(images)

    size = sum(value.nbytes for value in tower.state_dict().values())
    return _Variant(run, size / 1e6)


def _exported(folder: str, *, int8: bool) -> _Variant:
    file = Path(folder, INT8_FILE if int8 else MODEL_FILE)
    onnx = OnnxTower(folder, int8=int8)
    return _Variant(onnx.outputs, file.stat().st_size / 1e6)


def _speeds(
    runs: Mapping[str, Run], preprocess: Preprocess, batch_size: int, repeats: int
) -> dict[str, float]:
    """Return pictures per second of every variant, measured on random pictures."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, preprocess.size, preprocess.size)
    images = torch.randn(shape, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            # This pass loads weights and threads again, which the previous variant displaced.
            run(images)
            start = time.perf_counter()
            run(images)
            seconds[name].append(time.perf_counter() - start)
    return {name: batch_size / statistics.median(times) for name, times in seconds.items()}


def _accuracy(run: Run, pictures: PictureSet, tower: VisionTower) -> dict[str, float]:
    batches = pictures.rows.split(EVALUATED_AT_ONCE)
    outputs = [run(normalise(pictures.pictures[rows], tower.preprocess)) for rows in batches]
    accuracies = {}
    for column, target in enumerate(tower.classes):
        predicted = torch.cat([output.logits[target].argmax(dim=1) for output in outputs])
        labels = pictures.targets[pictures.rows, column]
        known = labels != UNKNOWN
        # Without a known label there is no accuracy to report.
        if known.any():
            accuracies[target] = float((predicted == labels)[known].float().mean())
    return accuracies
