"""Time the training of a vision tower against a bare loop on one batch in memory.

Run from the repository's root: ``python -m benchmarks.vision_train``.

Both train the same network with the same optimiser, precision and batch size, in turns in one
process. A turn is an epoch of ``vision.finetuning`` on Grocery Store's photos, then equally many
steps of a loop without files, loader, augmentation and Lightning. The first epoch is a warm-up.
Decoding is timed separately, and the checkpoint between epochs is not timed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.two_commands import measure
from vision.config import VisionConfig
from vision.dataset import Batch, Samples, decode_samples
from vision.device import Device, resolve_device
from vision.finetuning import finetune_run
from vision.networks.backbones import build_backbone
from vision.precision import autocast
from vision.squares import stored_preprocess
from vision.tower import VisionTower
from vision.training.augment import augment
from vision.training.presets import get_augmentation
from vision.training.run import TrainingRun
from vision.transforms import Preprocess

COMMAND = "python -m benchmarks.vision_train"
TOPIC = "vision_train"
SEED = 0


def main() -> None:
    """Measure and record; with ``--only-train`` only train, for the parent to measure memory."""
    options = _parse()
    config = VisionConfig(
        backbone=options.backbone,
        pretrained=False,
        size=options.size,
        batch_size=options.batch,
        augmentation=options.augmentation,
        epochs=1 if options.only_train else 1 + options.rounds,
    )
    samples = train_photos(options.pictures)
    if options.only_train:
        _train(samples, config, options.device)
        return
    again = ["-m", "benchmarks.vision_train", *sys.argv[1:], "--only-train"]
    peak_gb = measure([sys.executable, *again]).peak_gb
    decoding_s = _decoding_seconds(samples, config)
    turns = Turns(InMemory(samples, config, torch.device(options.device)))
    _train(samples, config, options.device, turns)
    step_s, bare_s, augment_s = turns.medians()
    figures = {
        "pictures_per_s": (config.batch_size / step_s, "pictures/s"),
        "in_memory_pictures_per_s": (config.batch_size / bare_s, "pictures/s"),
        "ratio_to_in_memory": (bare_s / step_s, "ratio"),
        "augment.share": (augment_s / step_s, "share"),
        "decode.pictures_per_s": (len(samples) / decoding_s, "pictures/s"),
        "peak_memory.gb": (peak_gb, "GB"),
    }
    prefix = TOPIC if options.device == "cpu" else f"{TOPIC}.{options.device}"
    for name, (value, unit) in figures.items():
        print(f"{prefix}.{name} = {value:.4g} {unit}")
        if options.record:
            record(TOPIC, f"{prefix}.{name}", value, unit, " ".join([COMMAND, *sys.argv[1:]]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="name of the network")
    parser.add_argument("--size", type=int, default=112, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=32, help="number of pictures in a step")
    parser.add_argument("--augmentation", default="strong", help="preset of the augmentation")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="device to train on"
    )
    parser.add_argument("--pictures", type=int, help="number of pictures to train on; all if unset")
    parser.add_argument("--rounds", type=int, default=5, help="number of timed epochs")
    parser.add_argument(
        "--no-record", dest="record", action="store_false", help="print without recording"
    )
    parser.add_argument(
        "--only-train", action="store_true", help="train one epoch without measuring"
    )
    return parser.parse_args()


def train_photos(count: int | None = None) -> Samples:
    """Return the first ``count`` or all train photos of Grocery Store, with their categories."""
    folder = imported("grocery-store", "grocery-store.tar")
    photos = pl.read_parquet(folder / "photos.parquet", glob=False).filter(
        pl.col("split") == "train"
    )
    photos = photos.head(len(photos) if count is None else count)
    targets, classes = {}, {}
    for level, names in enumerate(zip(*photos["category"], strict=True), start=1):
        known, indices = np.unique(names, return_inverse=True)
        classes[f"category_{level}"] = known.tolist()
        targets[f"category_{level}"] = indices.astype(np.int64)
    return Samples([Path(image) for image in photos["image"]], targets, classes, root=folder)


class InMemory:
    """A bare training loop, which repeats the same step on one batch of noise in memory.

    Args:
        samples: Pictures whose targets and classes are used.
        config: Settings of network, losses and optimiser.
        device: Device to train on.
    """

    def __init__(self, samples: Samples, config: VisionConfig, device: torch.device) -> None:
        torch.manual_seed(SEED)
        self.config, self.device = config, device
        backbone = build_backbone(config.backbone, size=config.size)
        self.tower = VisionTower(backbone, dim=config.dim, classes=samples.classes).to(device)
        sizes = [len(names) for names in samples.classes.values()]
        self.proxies = [nn.Parameter(torch.randn(n, config.dim, device=device)) for n in sizes]
        shape = (config.batch_size, 3, config.size, config.size)
        self.images = torch.randn(shape, device=device).contiguous(
            memory_format=torch.channels_last
        )
        self.labels = [torch.randint(n, (config.batch_size,), device=device) for n in sizes]
        self.parameters = [*self.tower.parameters(), *self.proxies]
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
        )

    def step(self) -> None:
        """Train on the batch once."""
        config = self.config
        with autocast(config.precision, self.device):
            embeddings, logits, _ = self.tower.outputs(self.images)
            loss = torch.zeros((), device=self.device)
            for scores, proxies, labels in zip(
                logits.values(), self.proxies, self.labels, strict=True
            ):
                cosines = embeddings @ F.normalize(proxies, dim=1).T / config.embedding_temperature
                for weight, one in ((1.0, scores), (config.embedding_weight, cosines)):
                    entropy = F.cross_entropy(one, labels, label_smoothing=config.label_smoothing)
                    loss = loss + weight * entropy / len(logits)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip)
        self.optimizer.step()


class Turns(Callback):
    """Times each epoch, then equally many steps of the bare loop and augmentations of a batch.

    Args:
        in_memory: Bare loop to compare with.
    """

    def __init__(self, in_memory: InMemory) -> None:
        self.in_memory, self.device = in_memory, in_memory.device
        self.steps_s: list[float] = []
        self.bare_s: list[float] = []
        self.augment_s: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        _synchronise(self.device)
        self.start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Keep the batch, to augment it again after the epoch."""
        self.batch = batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, then time the bare loop and the augmentation."""
        _synchronise(self.device)
        steps = int(trainer.num_training_batches)
        self.steps_s.append((time.perf_counter() - self.start) / steps)
        self.bare_s.append(_seconds(self.in_memory.step, steps, self.device))
        self.augment_s.append(_seconds(self._augment, steps, self.device))
        print(
            f"epoch {trainer.current_epoch}: {steps} steps of {1e3 * self.steps_s[-1]:.1f} ms, "
            f"in memory {1e3 * self.bare_s[-1]:.1f} ms, augmentation {1e3 * self.augment_s[-1]:.1f}"
        )

    def medians(self) -> tuple[float, float, float]:
        """Return the median seconds of a step, a bare step and an augmentation, after warm-up."""
        step, bare, augmenting = (
            statistics.median(seconds[1:])
            for seconds in (self.steps_s, self.bare_s, self.augment_s)
        )
        return step, bare, augmenting

    def _augment(self) -> None:
        config = self.in_memory.config
        augment(
            self.batch.pictures,
            self.batch.aspects,
            get_augmentation(config.augmentation),
            self.in_memory.tower.preprocess,
            size=config.size,
            generator=torch.Generator().manual_seed(SEED),
        )


def _train(samples: Samples, config: VisionConfig, device: Device, *callbacks: Callback) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder), SEED, resolve_device(device))
        finetune_run(samples, config, run, callbacks=callbacks)


def _decoding_seconds(samples: Samples, config: VisionConfig) -> float:
    """Return the seconds that fine-tuning takes to decode the pictures."""
    stored = stored_preprocess(Preprocess(size=config.size), config.size)
    start = time.perf_counter()
    decode_samples(samples, stored, spill=None, progress=False)
    return time.perf_counter() - start


def _seconds(run: Callable[[], None], times: int, device: torch.device) -> float:
    """Return the mean seconds of one run."""
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    _synchronise(device)
    return (time.perf_counter() - start) / times


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
