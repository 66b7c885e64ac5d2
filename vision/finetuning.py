"""Fine-tune a vision tower on labelled pictures."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from vision.config import VisionConfig
from vision.dataset import Batch, PictureSet, Rejected, Samples
from vision.device import Device, resolve_device
from vision.errors import InvalidArgumentError
from vision.file_states import hash_weights
from vision.networks.backbones import build_backbone, enable_recompute, try_size
from vision.networks.lora import add_lora, merge_lora
from vision.networks.start import decide_start, warn_of_random_weights
from vision.networks.weights import find_local, find_package
from vision.pretrain import pretrain_run
from vision.tower import VisionTower
from vision.training.blending import keep_best_blend
from vision.training.callbacks import build_callbacks
from vision.training.checkpoints import load_kept, read_last
from vision.training.data import (
    TrainingData,
    build_order,
    class_counts,
    decode_data,
    steps_per_epoch,
)
from vision.training.growth import training_size
from vision.training.heads import fit_heads
from vision.training.learner import Learner
from vision.training.processes import Order, current_shard, shared_norms
from vision.training.recipe import decide_recipe
from vision.training.run import TrainingRun
from vision.training.self_training import self_train
from vision.training.silence import quiet_lightning
from vision.training.tracking import open_logger
from vision.training.trainer import average_weights, build_loader, build_trainer, fit_settings


class FinetuneResult(NamedTuple):
    """A trained tower and how it went."""

    tower: VisionTower  # in evaluation mode, on the CPU
    metrics: dict[str, float]  # of the returned tower on the validation samples, if any
    epochs: int  # trained, at most config.epochs
    rejected: tuple[Rejected, ...]  # pictures that could not be read


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

    The state of training is kept in ``workdir/last.ckpt``. If the folder has a checkpoint of the
    same samples, configuration and seed, training is resumed from it, with the same result as
    without the interruption. On one machine with one number of threads, equal arguments give equal
    results.

    Processes that ``torchrun`` starts share every batch, with the same result as one process if the
    backbone has no batch norms. Batch norms see the whole batch on CUDA cards, but only the rows of
    their process on processors. Each process draws its own mixing and dropout.

    Args:
        samples: Pictures and labels to learn from; unreadable pictures are left out and reported.
        config: Backbone, schedule and regularisation.
        validation: Pictures to measure after every epoch, with the same classes.
        workdir: Folder for checkpoints; it is created, and never deleted.
        seed: Random seed of the run.
        progress: Whether to show Lightning's progress bar.
        device: Device to compute on; auto is CUDA if there is a card, else the processor.

    Raises:
        InvalidArgumentError: If the samples have no targets, or the configuration or the validation
            samples do not fit them.
        TrainingError: If fewer than two pictures can be read, the loss is not finite, or workdir
            has the checkpoint of another run.
        WeightsError: If the configured weights are not on this machine.
    """
    run = TrainingRun(workdir, seed, resolve_device(device), progress)
    return finetune_run(samples, config, run, validation=validation)


def finetune_run(
    samples: Samples,
    config: VisionConfig,
    run: TrainingRun,
    *,
    validation: Samples | None = None,
    callbacks: Sequence[Callback] = (),
) -> FinetuneResult:
    """Return the result of :func:`finetune` on a run, with Lightning callbacks of the caller.

    Args:
        samples: Pictures and labels to learn from.
        config: Backbone, schedule and regularisation.
        run: Folder of the checkpoints, seed and device; the fingerprint is computed here.
        validation: Pictures to measure after every epoch, with the same classes.
        callbacks: Callbacks that are called before each epoch's checkpoint; they may stop the run.

    Raises:
        VisionError: For the same reasons as :func:`finetune`.
    """
    if config.pseudo_labels is not None:
        return _self_trained(samples, config, run, validation, callbacks)
    check_samples(samples, config, validation)
    warn_of_random_weights(config)
    config = decide_recipe(decide_start(config), samples)
    run.workdir.mkdir(parents=True, exist_ok=True)
    run = replace(run, fingerprint=_fingerprint(samples, validation, config, run.seed))
    if config.pretraining is not None:
        config = _pretrained(samples, config, run)
    # Weights, dropout and stochastic depth draw from torch's global generator, whose state is
    # restored afterwards.
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(run.seed)
        tower = _prepared(build_tower(samples.classes, config), config)
        data = decode_data(samples, validation, tower.preprocess, config, run)
        learner = _build_learner(tower, config, data, run)
        start = _fitted_start(learner, data, run)
        epochs = _fit(learner, data, run, callbacks)
        metrics = _keep_best(learner, data, run, start)
        if config.transfer.lora_rank:
            tower.backbone = merge_lora(tower.backbone)
    rejected = data.train.rejected + (data.validation.rejected if data.validation else ())
    return FinetuneResult(tower.cpu().eval(), metrics, epochs, rejected)


def _self_trained(
    samples: Samples,
    config: VisionConfig,
    run: TrainingRun,
    validation: Samples | None,
    callbacks: Sequence[Callback],
) -> FinetuneResult:
    """Return the tower of several runs, each in a folder of its own, by ``pseudo_labels``."""
    if callbacks:
        raise InvalidArgumentError(
            "pseudo_labels trains several times, which a search cannot follow: unset it to tune"
        )
    check_samples(samples, config, validation)
    assert config.pseudo_labels is not None, "the caller has looked"
    plain = config.model_copy(update={"pseudo_labels": None})

    def train(part: Samples, name: str, seed: int) -> FinetuneResult:
        own = replace(run, workdir=run.workdir / name, seed=seed)
        return finetune_run(part, plain, own, validation=validation)

    return self_train(train, samples, config.pseudo_labels, seed=run.seed)


def build_tower(classes: Mapping[str, Sequence[str]], config: VisionConfig) -> VisionTower:
    """Return the tower that fine-tuning starts from: the configured backbone, and random heads.

    Args:
        classes: Class names of every target.
        config: Backbone and its weights; random weights are drawn from torch's generator.

    Raises:
        InvalidArgumentError: If the network is unknown, or cannot read pictures of the configured
            sizes.
        WeightsError: If the configured weights are not on this machine.
    """
    config = decide_start(config)
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


def check_samples(samples: Samples, config: VisionConfig, validation: Samples | None) -> None:
    """Raise unless the configuration fits the samples; nothing is read or trained.

    Args:
        samples: Pictures and labels to learn from.
        config: Configuration of the run.
        validation: Pictures to measure after every epoch, if any.

    Raises:
        InvalidArgumentError: If they do not fit each other.
    """
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
    if config.pseudo_labels is not None and not samples.unlabelled:
        raise InvalidArgumentError(
            "pseudo_labels needs pictures without a label to learn from, got none; add photos of "
            "train that name neither item nor category, or unset pseudo_labels"
        )
    if config.patience is not None and validation is None:
        raise InvalidArgumentError(
            f"patience = {config.patience} needs validation samples, got none; leave it unset"
        )


def check_start(classes: Mapping[str, Sequence[str]], config: VisionConfig) -> None:
    """Raise unless the tower that training starts from can be built; nothing is downloaded.

    What a hub has is left to training, which may download it.

    Args:
        classes: Class names of every target.
        config: Backbone, its weights and which of them are trained.

    Raises:
        InvalidArgumentError: As for :func:`build_tower`.
        WeightsError: If weights on this machine are missing, damaged or of another network.
    """
    config = decide_start(config)
    library, _, source = config.backbone.partition("/")
    is_local = find_local(config.pretrained) is not None
    if library == "transformers":
        if source and not source.startswith((".", "~", "/")) and not Path(source).is_dir():
            return
        is_local = is_local or config.pretrained is True
    elif config.pretrained is True:
        is_local = find_package(config.backbone) is not None
    known = config if is_local else config.model_copy(update={"pretrained": False})
    with torch.random.fork_rng(devices=[]):
        _prepared(build_tower(classes, known), known)


def _names(samples: Samples) -> list[tuple[str, list[str]]]:
    return [(target, list(names)) for target, names in samples.classes.items()]


def _pretrained(samples: Samples, config: VisionConfig, run: TrainingRun) -> VisionConfig:
    """Return the configuration with weights pretrained on all pictures, without their labels."""
    result = pretrain_run(
        [*samples.images, *samples.unlabelled],
        config,
        replace(run, workdir=run.workdir / "pretraining"),
        root=samples.root,
    )
    return config.model_copy(update={"pretrained": str(result.folder), "pretraining": None})


def _prepared(tower: VisionTower, config: VisionConfig) -> VisionTower:
    """Return the tower with low-rank updates and recomputation, as far as configured."""
    if config.recompute:
        enable_recompute(tower.backbone)
    if config.transfer.lora_rank:
        rank, alpha = config.transfer.lora_rank, config.transfer.lora_alpha
        tower.backbone = add_lora(tower.backbone, rank=rank, alpha=alpha, size=config.size)
    return tower


def _fingerprint(
    samples: Samples, validation: Samples | None, config: VisionConfig, seed: int
) -> str:
    """Return a digest of everything that a run depends on, so that no other run is resumed."""
    described = config.model_dump_json(exclude={"tracking", "cache_gb"})
    parts = [part.fingerprint() for part in (samples, validation) if part is not None]
    everything = f"{described} {hash_weights(config)} {seed} {parts}"
    return hashlib.sha256(everything.encode()).hexdigest()


def _build_learner(
    tower: VisionTower, config: VisionConfig, data: TrainingData, run: TrainingRun
) -> Learner:
    return Learner(
        tower,
        config,
        images=data.train.images,
        counts=class_counts(data.train, tower.classes),
        total_steps=config.epochs * steps_per_epoch(data.train, config),
        seed=run.seed,
        shard=current_shard(),
    )


def _fitted_start(
    learner: Learner, data: TrainingData, run: TrainingRun
) -> dict[str, Tensor] | None:
    """Return the tower's weights with fitted heads, if training starts from these."""
    if learner.config.transfer.heads != "fitted":
        return None
    learner.tower.to(run.device)
    fit_heads(learner, data.train)
    return {name: value.clone() for name, value in learner.tower.state_dict().items()}


def _fit(
    learner: Learner, data: TrainingData, run: TrainingRun, callbacks: Sequence[Callback]
) -> int:
    """Train, from the last checkpoint if there is one, and return the number of epochs."""
    config, shard = learner.config, learner.shard
    settings = fit_settings(config)
    found = read_last(run, settings.keep)
    if found is None or not found["finished"]:
        every = build_callbacks(settings, run, learner.name_samples)
        together = [*callbacks, *average_weights(config.ema), *every]
        order = build_order(data.train, config, [*learner.tower.classes], run.seed)
        name = f"{run.workdir.name}-seed-{run.seed}"
        with (
            open_logger(config.tracking, run.workdir, name=name) as logger,
            shared_norms(learner.tower.backbone, shard, run.device),
        ):
            build_trainer(settings, run, together, shard=shard, logger=logger).fit(
                learner,
                _batches(data.train, learner, run, order),
                None if data.validation is None else _batches(data.validation, learner, run),
                ckpt_path=None if found is None else run.checkpoint("last"),
                weights_only=True,  # a checkpoint is data: no object in it is executed
            )
    # With averaging, a checkpoint has the averaged weights.
    return load_kept(learner, settings, run)


def _batches(
    pictures: PictureSet, learner: Learner, run: TrainingRun, order: Order | None = None
) -> DataLoader[Batch]:
    return build_loader(
        pictures,
        learner.config.batch_size,
        order,
        shard=learner.shard,
        pin_memory=run.device.type == "cuda",
    )


def _keep_best(
    learner: Learner, data: TrainingData, run: TrainingRun, start: dict[str, Tensor] | None
) -> dict[str, float]:
    """Return the validation metrics of the tower, blended with its start if that is better."""

    def measure() -> dict[str, float]:
        return _validate(learner, data, run)

    if start is None or data.validation is None:
        return measure()
    return keep_best_blend(learner.tower, start, measure)


def _validate(learner: Learner, data: TrainingData, run: TrainingRun) -> dict[str, float]:
    """Return the validation metrics of the weights that the run keeps."""
    if data.validation is None:
        return {}
    settings = fit_settings(learner.config)
    trainer = build_trainer(settings, replace(run, progress=False), [], shard=learner.shard)
    loader = _batches(data.validation, learner, run)
    (metrics,) = trainer.validate(learner, loader, verbose=False)
    return {name.removeprefix("validation/"): float(value) for name, value in metrics.items()}
