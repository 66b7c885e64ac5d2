"""Fine-tune a vision tower on labelled pictures."""

import contextlib
import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from vision.backbones import build_backbone
from vision.config import VisionConfig
from vision.dataset import EpochShuffle, PictureSet, Rejected, Samples, decode_samples
from vision.errors import TrainingError
from vision.learner import Learner
from vision.tower import VisionTower
from vision.trainer import (
    BEST,
    LAST,
    build_callbacks,
    build_loader,
    build_trainer,
    quiet_lightning,
    read_checkpoint,
)

# Pictures are kept a little larger than a crop of the whole, so that crops keep their detail.
STORED_OVER_TRAINED = 1.15

Device = Literal["auto", "cpu", "cuda"]


class FinetuneResult(NamedTuple):
    """A trained tower and how it went."""

    tower: VisionTower  # in evaluation mode, on the CPU
    metrics: dict[str, float]  # of the returned tower on the validation samples; else empty
    epochs: int  # trained, at most config.epochs
    rejected: tuple[Rejected, ...]  # pictures that could not be read


class _Data(NamedTuple):
    train: PictureSet
    validation: PictureSet | None


def finetune(
    samples: Samples,
    config: VisionConfig,
    *,
    validation: Samples | None = None,
    workdir: Path,
    seed: int,
    progress: bool = False,
    device: Device = "auto",
) -> FinetuneResult:
    """Return a tower trained on the samples.

    The state is kept in ``workdir/last.ckpt``; where one of the same samples, configuration and
    seed is found, training goes on from it and ends as if it had not been interrupted. The result
    is a function of the arguments on one machine with one number of threads.

    Args:
        samples: Pictures and labels to learn from; unreadable pictures are left out and reported.
        config: Backbone, schedule and regularisation.
        validation: Pictures to measure after every epoch, with the same classes.
        workdir: Folder for checkpoints; made if it is not there, the caller's to delete.
        seed: Seed of the weights and of every draw.
        progress: Show Lightning's progress bar.
        device: Where to compute; auto is CUDA where there is a card, else the processor.

    Raises:
        ValueError: If there is no target, or the validation samples have other classes.
        TrainingError: If no picture can be read, the loss is not finite, or workdir holds the
            checkpoint of another run.
        WeightsError: If named weights are not on this machine.
    """
    _check(samples, config, validation)
    workdir.mkdir(parents=True, exist_ok=True)
    place = torch.device("cuda" if _wants_cuda(device) else "cpu")
    # Weights, dropout and stochastic depth draw from torch's global generator, which is handed
    # back as it was found.
    with torch.random.fork_rng(), quiet_lightning(), contextlib.ExitStack() as cleanup:
        torch.manual_seed(seed)
        tower = _build_tower(samples, config)
        data = _decode(samples, validation, tower, config, workdir, progress, cleanup)
        learner = Learner(
            tower,
            config,
            images=data.train.images,
            total_steps=config.epochs * _steps_per_epoch(data.train, config),
            seed=seed,
            fingerprint=_fingerprint(samples, validation, config, seed),
        )
        epochs = _fit(learner, data, config, workdir, place, progress)
        metrics = _validate(learner, data, config, place)
    rejected = data.train.rejected + (data.validation.rejected if data.validation else ())
    return FinetuneResult(tower.cpu().eval(), metrics, epochs, rejected)


def _check(samples: Samples, config: VisionConfig, validation: Samples | None) -> None:
    if not samples.classes:
        raise ValueError("samples must have at least one target, got none: nothing to learn from")
    unknown = sorted(set(config.target_weights) - set(samples.classes))
    if unknown:
        raise ValueError(
            f"target_weights must name targets of the samples ({', '.join(samples.classes)}), "
            f"got {unknown}"
        )
    if validation is not None and _names(validation) != _names(samples):
        raise ValueError("validation samples must have the targets and classes of the samples")
    if config.patience is not None and validation is None:
        raise ValueError(f"patience = {config.patience} needs validation samples, got none")


def _names(samples: Samples) -> list[tuple[str, list[str]]]:
    return [(target, list(names)) for target, names in samples.classes.items()]


def _wants_cuda(device: Device) -> bool:
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _build_tower(samples: Samples, config: VisionConfig) -> VisionTower:
    backbone = build_backbone(
        config.backbone,
        pretrained=config.pretrained,
        size=config.size,
        fit=config.fit,
        drop_path=config.drop_path,
    )
    return VisionTower(backbone, dim=config.dim, classes=samples.classes, dropout=config.dropout)


def _decode(
    samples: Samples,
    validation: Samples | None,
    tower: VisionTower,
    config: VisionConfig,
    workdir: Path,
    progress: bool,
    cleanup: contextlib.ExitStack,
) -> _Data:
    """Return decoded pictures, in memory or, beyond cache_gb, in files removed by cleanup."""
    stored = tower.preprocess.model_copy(
        update={
            "size": round(STORED_OVER_TRAINED * (config.train_size or config.size)),
            # Crops are drawn in the shape the picture had, whatever the shape it is kept in.
            "fit": "stretch",
        }
    )
    count = 0 if validation is None else len(validation)
    pixels = len(samples) * stored.size**2 + count * config.size**2
    spills: list[Path | None] = [None, None]
    if 3 * pixels > config.cache_gb * 1e9:
        spills = [workdir / "train.pixels", workdir / "validation.pixels"]
        for spill in (workdir / "train.pixels", workdir / "validation.pixels"):
            cleanup.callback(spill.unlink, missing_ok=True)
    train = decode_samples(samples, stored, spill=spills[0], progress=progress)
    if len(train) < 2:
        raise TrainingError(f"training needs at least 2 readable pictures, got {len(train)}")
    if validation is None:
        return _Data(train, None)
    held_out = decode_samples(validation, tower.preprocess, spill=spills[1], progress=progress)
    return _Data(train, held_out)


def _steps_per_epoch(train: PictureSet, config: VisionConfig) -> int:
    return max(1, len(train) // config.batch_size)


def _fingerprint(
    samples: Samples, validation: Samples | None, config: VisionConfig, seed: int
) -> str:
    """Return a digest of what a run depends on, so that no other run is continued by mistake."""
    digest = hashlib.sha256(f"{config.model_dump_json()} {seed}".encode())
    for part in (samples, validation):
        if part is not None:
            digest.update(repr((_names(part), [str(image) for image in part.images])).encode())
            for labels in part.targets.values():
                digest.update(labels.tobytes())
    return digest.hexdigest()


def _fit(
    learner: Learner,
    data: _Data,
    config: VisionConfig,
    workdir: Path,
    device: torch.device,
    progress: bool,
) -> int:
    """Train what the last checkpoint leaves to train and return the number of epochs in all."""
    last = workdir / f"{LAST}.ckpt"
    found = read_checkpoint(last) if last.exists() else None
    if found is not None and found.get("fingerprint") != learner.fingerprint:
        raise TrainingError(
            f"{last} is of a run with other samples, configuration or seed; "
            "delete it or choose another workdir"
        )
    if found is None or not found["finished"]:
        trainer = build_trainer(config, device, build_callbacks(config, workdir), progress)
        order = EpochShuffle(len(data.train), learner.seed)
        trainer.fit(
            learner,
            build_loader(data.train, config, device, order),
            None if data.validation is None else build_loader(data.validation, config, device),
            ckpt_path=None if found is None else last,
            weights_only=True,
        )
    # The checkpoint's weights are the averaged ones where there is an average.
    kept = last if config.patience is None else workdir / f"{BEST}.ckpt"
    learner.load_state_dict(read_checkpoint(kept)["state_dict"])
    return int(read_checkpoint(last)["epoch"]) + 1


def _validate(
    learner: Learner, data: _Data, config: VisionConfig, device: torch.device
) -> dict[str, float]:
    """Return the metrics of the weights that are kept: averaged, or those of the best epoch."""
    if data.validation is None:
        return {}
    trainer = build_trainer(config, device, [], progress=False)
    loader = build_loader(data.validation, config, device)
    (metrics,) = trainer.validate(learner, loader, verbose=False)
    return {name.removeprefix("validation/"): float(value) for name, value in metrics.items()}
