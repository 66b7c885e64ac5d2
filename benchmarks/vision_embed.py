"""Time embedding JPEG files against a plain torchvision loop.

Run from the repository's root: ``python -m benchmarks.vision_embed``. With ``--upscale 1024`` the
pictures are as large as photos from phones.

The plain loop is ``ImageFolder``, ``DataLoader`` with a worker per core, the usual four transforms
and the network in float32. It reads the same files with the same filter at the same size, and
its network is a copy of ours, with the same random weights. All contestants take turns in one
process.

``float32`` and ``bf16`` are ``VisionTower.embed``, ``onnx`` and ``int8`` are ``OnnxTower.embed``.
``ratio_to_dataloader`` is that of the faster one of ``float32`` and ``onnx``. ``gpu`` is compiled
``embed_files`` in bfloat16, measured only on a machine with a CUDA device.
"""

import argparse
import copy
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import ImageFolder
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from benchmarks.record import record
from benchmarks.vision_train import train_photos
from vision.deploy.bulk import embed_files
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

COMMAND = "python -m benchmarks.vision_embed"
TOPIC = "vision_embed"
# Dense bfloat16 multiplications and additions per second, from NVIDIA's data sheets.
PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
GPU_PASSES = 10  # passes over the files in one turn, because a single one is too short to time

Embed = Callable[[], NDArray[np.float32]]


def main() -> None:
    """Measure every contestant and record how many pictures it embeds in a second."""
    options = _parse()
    torch.manual_seed(0)
    backbone = build_backbone(options.backbone, size=options.size, fit="crop")
    tower = VisionTower(backbone, dim=128, classes={}).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _write_pictures(folder / "pictures" / "all", options.pictures, options.upscale)
        contestants = _contestants(tower, paths, options.batch, folder)
        speeds = _in_turns(contestants, options.rounds)
    figures = {f"{name}.pictures_per_s": (speed, "pictures/s") for name, speed in speeds.items()}
    for name in ("float32", "onnx", "bf16", "int8"):
        figures[f"{name}.ratio_to_dataloader"] = (speeds[name] / speeds["dataloader"], "ratio")
    figures["ratio_to_dataloader"] = max(
        figures["float32.ratio_to_dataloader"], figures["onnx.ratio_to_dataloader"]
    )
    if "gpu" in speeds and torch.cuda.get_device_name() in PEAK_FLOPS:
        share = speeds["gpu"] * _flops(tower) / PEAK_FLOPS[torch.cuda.get_device_name()]
        figures["gpu.flop_share"] = (share, "share")
    prefix = TOPIC if options.upscale is None else f"{TOPIC}.{options.upscale}px"
    for name, (value, unit) in figures.items():
        print(f"{prefix}.{name} = {value:.4g} {unit}")
        if options.record:
            record(TOPIC, f"{prefix}.{name}", value, unit, " ".join([COMMAND, *sys.argv[1:]]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="name of the network")
    parser.add_argument("--size", type=int, default=112, help="side of the input in pixels")
    parser.add_argument("--batch", type=int, default=64, help="number of pictures in one pass")
    parser.add_argument("--pictures", type=int, default=1000, help="number of pictures to embed")
    parser.add_argument(
        "--upscale", type=int, help="shorter side in pixels to enlarge the pictures to"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of timed turns")
    parser.add_argument(
        "--no-record", dest="record", action="store_false", help="print without recording"
    )
    return parser.parse_args()


def _write_pictures(folder: Path, count: int, side: int | None) -> list[Path]:
    """Return JPEG files of the first train photos, enlarged to a shorter side if one is given."""
    samples = train_photos(count)
    folder.mkdir(parents=True)
    paths = [folder / f"{row:05}.jpg" for row in range(len(samples))]
    for image, path in zip(samples.images, paths, strict=True):
        source = (samples.root or Path()) / image
        if side is None:
            path.write_bytes(source.read_bytes())
            continue
        with Image.open(source) as picture:
            factor = side / min(picture.size)
            picture.resize(
                (round(factor * picture.width), round(factor * picture.height)),
                Image.Resampling.BICUBIC,
            ).save(path, quality=90)
    return paths


def _contestants(
    tower: VisionTower, paths: list[Path], batch: int, folder: Path
) -> dict[str, Embed]:
    from vision.deploy.export import export_onnx
    from vision.deploy.onnx_tower import OnnxTower

    export_onnx(tower, folder / "onnx", int8_calibration=paths[:100])
    towers = {name: OnnxTower(folder / "onnx", int8=name == "int8") for name in ("onnx", "int8")}
    contestants: dict[str, Embed] = {
        "float32": functools.partial(tower.embed, paths, batch_size=batch, precision="32-true"),
        "onnx": functools.partial(towers["onnx"].embed, paths, batch_size=batch),
        "bf16": functools.partial(tower.embed, paths, batch_size=batch, precision="bf16-mixed"),
        "int8": functools.partial(towers["int8"].embed, paths, batch_size=batch),
        "dataloader": _plain_loop(tower, paths[0].parents[1], batch),
    }
    if torch.cuda.is_available():
        contestants["gpu"] = functools.partial(
            embed_files,
            copy.deepcopy(tower),
            paths * GPU_PASSES,
            device="cuda",
            precision="bf16-mixed",
            compile=True,
        )
    return contestants


def _plain_loop(tower: VisionTower, folder: Path, batch: int) -> Embed:
    """Return an embedding loop as one would write it without this library."""
    wanted = tower.preprocess
    transform = Compose(
        [
            Resize(wanted.size, InterpolationMode(wanted.interpolation)),
            CenterCrop(wanted.size),
            ToTensor(),
            Normalize(wanted.mean, wanted.std),
        ]
    )
    # Workers live on between the turns, so that their start is not timed.
    loader = DataLoader(
        ImageFolder(folder, transform),
        batch_size=batch,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
    )
    model = copy.deepcopy(tower).to(memory_format=torch.contiguous_format).eval()

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.concatenate([model(images).numpy() for images, _ in loader])

    return run


def _in_turns(contestants: Mapping[str, Embed], rounds: int) -> dict[str, float]:
    """Return each contestant's median pictures per second; the first round is a warm-up."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(1 + rounds):
        for name, embed in contestants.items():
            start = time.perf_counter()
            count = len(embed())
            speeds[name].append(count / (time.perf_counter() - start))
            print(f"round {turn}: {name} {speeds[name][-1]:.1f} pictures/s", flush=True)
    return {name: statistics.median(measured[1:]) for name, measured in speeds.items()}


def _flops(tower: VisionTower) -> int:
    """Return the number of multiplications and additions for one picture."""
    side = tower.preprocess.size
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        tower(torch.zeros(1, 3, side, side))
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
