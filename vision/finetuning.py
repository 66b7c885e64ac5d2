"""Fine-tune a vision tower on labelled pictures."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback

from vision.config import VisionConfig
from vision.dataset import Rejected, Samples
from vision.device import Device, resolve_device
from vision.errors import InvalidArgumentError
from vision.networks.backbones import build_backbone, enable_recompute, try_size
from vision.networks.lora import add_lora, merge_lora
from vision.pretrain import pretrain
from vision.tower import VisionTower
from vision.training.data import (
    SpillFolder,
    TrainingData,
    build_order,
    class_counts,
    decode_data,
    steps_per_epoch,
)
from vision.training.growth import training_size
from vision.training.learner import Learner
from vision.training.processes import current_shard, shared_norms
from vision.training.tracking import open_logger
from vision.training.trainer import (
    BEST,
    LAST,
    build_callbacks,
    build_loader,
    build_trainer,
    quiet_lightning,
    read_checkpoint,
    read_last,
)


class FinetuneResult(NamedTuple):
    """A trained tower and how it went."""

    tower: VisionTower  # in evaluation mode, on the CPU
    metrics: dict[str, float]  # of the returned tower on the validation samples; else empty
    epochs: int  # trained, at most config.epochs
    rejected: tuple[Rejected, ...]  # pictures that could not be read


def finetune(
    samples: Samples,
    config: VisionConfig,
    *,
    validation: Samples | None = None,
    unlabelled: Sequence[Path] = (),
    workdir: Path,
    seed: int,
    progress: bool = False,
    device: Device = "auto",
    callbacks: Sequence[Callback] = (),
) -> FinetuneResult:
    """Return a tower trained on the samples.

    The state is kept in ``workdir/last.ckpt``; where one of the same samples, configuration and
    seed is found, training goes on from it and ends as if it had not been interrupted. The result
    is a function of the arguments on one machine with one number of threads.

    Under ``torchrun`` the processes share every batch, and the result is that of one process for
    backbones without batch normalisation; with it, statistics are those of a process's own share
    on processors, and of the whole batch on cards. Mixing and dropout draw for each process.

    Args:
        samples: Pictures and labels to learn from; unreadable pictures are left out and reported.
        config: Backbone, schedule and regularisation.
        validation: Pictures to measure after every epoch, with the same classes.
        unlabelled: More pictures for ``config.pretraining``, under the samples' root.
        workdir: Folder for checkpoints; made if it is not there, the caller's to delete.
        seed: Seed of the weights and of every draw.
        progress: Show Lightning's progress bar.
        device: Where to compute; auto is CUDA where there is a card, else the processor.
        callbacks: Told of every epoch before its checkpoint is written; one may stop the run.

    Raises:
        InvalidArgumentError: If there is no target, or the validation samples have other classes.
        TrainingError: If no picture can be read, the loss is not finite, or workdir holds the
            checkpoint of another run.
        WeightsError: If named weights are not on this machine.
    """
    _check(samples, config, validation)
    shard = current_shard()
    workdir.mkdir(parents=True, exist_ok=True)
    place = resolve_device(device)
    fingerprint = _fingerprint(samples, validation, config, seed)
    if config.pretraining is not None:
        config = _pretrained(samples, unlabelled, config, workdir, seed, progress, device)
    # Weights, dropout and stochastic depth draw from torch's global generator, which is handed
    # back as it was found.
    with torch.random.fork_rng(), quiet_lightning(), contextlib.ExitStack() as cleanup:
        torch.manual_seed(seed)
        tower = _prepared(build_tower(samples.classes, config), config)
        spill = SpillFolder(workdir, shard, cleanup)
        data = decode_data(
            samples, validation, tower.preprocess, config, spill=spill, progress=progress
        )
        learner = Learner(
            tower,
            config,
            images=data.train.images,
            counts=class_counts(data.train, samples.classes),
            total_steps=config.epochs * steps_per_epoch(data.train, config),
            seed=seed,
            fingerprint=fingerprint,
            shard=shard,
        )
        epochs = _fit(learner, data, config, workdir, place, progress, callbacks)
        metrics = _validate(learner, data, config, place)
        if config.transfer.lora_rank:
            tower.backbone = merge_lora(tower.backbone)
    rejected = data.train.rejected + (data.validation.rejected if data.validation else ())
    return FinetuneResult(tower.cpu().eval(), metrics, epochs, rejected)


def build_tower(classes: Mapping[str, Sequence[str]], config: VisionConfig) -> VisionTower:
    """Return the tower that fine-tuning starts from: the configured backbone, and random heads.

    Args:
        classes: Class names of every target.
        config: Gives the backbone and its weights; random ones are drawn from torch's generator.

    Raises:
        InvalidArgumentError: If there is no such network, or it does not read pictures of the sizes
            asked.
        WeightsError: If named weights are not on this machine.
    """
    backbone = build_backbone(
        config.backbone,
        pretrained=config.pretrained,
        size=config.size,
        fit=config.fit,
        drop_path=config.drop_path,
    )
    for side in {training_size(0, config), config.train_size or config.size} - {config.size}:
        try_size(backbone.network, side, config.backbone)
    return VisionTower(backbone, dim=config.dim, classes=classes, dropout=config.dropout)


def _check(samples: Samples, config: VisionConfig, validation: Samples | None) -> None:
    if not samples.classes:
        raise InvalidArgumentError(
            "samples must have at least one target, got none: nothing to learn from"
        )
    named: dict[str, list[str | None]] = {
        "target_weights": [*config.target_weights],
        "objective.metric_target": [config.objective.metric_target],
        "imbalance.target": [config.imbalance.target],
    }
    for field, targets in named.items():
        unknown = sorted({one for one in targets if one is not None} - set(samples.classes))
        if unknown:
            raise InvalidArgumentError(
                f"{field} must name targets of the samples ({', '.join(samples.classes)}), "
                f"got {unknown}"
            )
    if validation is not None and _names(validation) != _names(samples):
        raise InvalidArgumentError(
            "validation samples must have the targets and classes of the samples"
        )
    if config.patience is not None and validation is None:
        raise InvalidArgumentError(
            f"patience = {config.patience} needs validation samples, got none"
        )


def _names(samples: Samples) -> list[tuple[str, list[str]]]:
    return [(target, list(names)) for target, names in samples.classes.items()]


def _pretrained(
    samples: Samples,
    unlabelled: Sequence[Path],
    config: VisionConfig,
    workdir: Path,
    seed: int,
    progress: bool,
    device: Device,
) -> VisionConfig:
    """Return the configuration that starts from what was learned from all pictures alone."""
    result = pretrain(
        [*samples.images, *unlabelled],
        config,
        workdir=workdir / "pretraining",
        seed=seed,
        root=samples.root,
        progress=progress,
        device=device,
    )
    return config.model_copy(update={"pretrained": str(result.folder), "pretraining": None})


def _prepared(tower: VisionTower, config: VisionConfig) -> VisionTower:
    """Return the tower with what training alone needs in its backbone."""
    if config.recompute:
        enable_recompute(tower.backbone)
    if config.transfer.lora_rank:
        rank, alpha = config.transfer.lora_rank, config.transfer.lora_alpha
        tower.backbone = add_lora(tower.backbone, rank=rank, alpha=alpha, size=config.size)
    return tower


def _fingerprint(
    samples: Samples, validation: Samples | None, config: VisionConfig, seed: int
) -> str:
    """Return a digest of what a run depends on, so that no other run is continued by mistake."""
    told = config.model_dump_json(exclude={"tracking", "cache_gb"})
    digest = hashlib.sha256(f"{told} {seed}".encode())
    for part in (samples, validation):
        if part is not None:
            digest.update(repr((_names(part), [str(image) for image in part.images])).encode())
            for labels in part.targets.values():
                digest.update(labels.tobytes())
    return digest.hexdigest()


def _fit(
    learner: Learner,
    data: TrainingData,
    config: VisionConfig,
    workdir: Path,
    device: torch.device,
    progress: bool,
    callbacks: Sequence[Callback],
) -> int:
    """Train what the last checkpoint leaves to train and return the number of epochs in all."""
    last = workdir / f"{LAST}.ckpt"
    found = read_last(workdir, learner.fingerprint)
    if found is None or not found["finished"]:
        together = [*callbacks, *build_callbacks(config, workdir, learner.seed)]
        shard, held_out = learner.shard, data.validation
        order = build_order(data.train, config, [*learner.tower.classes], learner.seed)
        name = f"{workdir.name}-seed-{learner.seed}"
        with (
            open_logger(config.tracking, workdir, name=name) as logger,
            shared_norms(learner.tower.backbone, shard, device),
        ):
            build_trainer(config, device, together, progress, shard=shard, logger=logger).fit(
                learner,
                build_loader(data.train, config, device, order, shard=shard),
                None if held_out is None else build_loader(held_out, config, device, shard=shard),
                ckpt_path=None if found is None else last,
                weights_only=True,
            )
    # The checkpoint's weights are the averaged ones where there is an average.
    kept = last if config.patience is None else workdir / f"{BEST}.ckpt"
    learner.load_state_dict(read_checkpoint(kept)["state_dict"])
    return int(read_checkpoint(last)["epoch"]) + 1


def _validate(
    learner: Learner, data: TrainingData, config: VisionConfig, device: torch.device
) -> dict[str, float]:
    """Return the metrics of the weights that are kept: averaged, or those of the best epoch."""
    if data.validation is None:
        return {}
    trainer = build_trainer(config, device, [], progress=False, shard=learner.shard)
    loader = build_loader(data.validation, config, device, shard=learner.shard)
    (metrics,) = trainer.validate(learner, loader, verbose=False)
    return {name.removeprefix("validation/"): float(value) for name, value in metrics.items()}
