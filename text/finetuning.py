"""Fine-tune a text encoder on the catalogue's own texts."""

import hashlib
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from text.config import AUTO, TextConfig
from text.dataset import EpochShuffle, Samples, TextSet
from text.device import Device, resolve_device
from text.encoder import TextEncoder
from text.errors import InvalidArgumentError
from text.networks.build import build_encoder
from text.networks.hub import find_installed, is_hub_id
from text.networks.transfer import merge_lora, restrict_learning
from text.retrieval import word_query_hit_rate
from text.training.learner import Learner
from text.training.run import FitSettings, TrainingRun
from text.training.silence import quiet_lightning
from text.training.trainer import build_loader, build_trainer, fit, fit_settings

logger = logging.getLogger(__name__)


class FinetuneResult(NamedTuple):
    """A trained encoder and how it went."""

    encoder: TextEncoder  # in evaluation mode, on the CPU
    metrics: dict[str, float]  # of the returned encoder on the validation samples, if any
    epochs: int  # trained, at most config.epochs


class _Data(NamedTuple):
    train: TextSet
    validation: TextSet | None


def finetune(
    samples: Samples,
    config: TextConfig,
    *,
    validation: Samples | None = None,
    workdir: Path,
    seed: int,
    progress: bool = False,
    device: Device = "auto",
) -> FinetuneResult:
    """Return an encoder trained on the samples, or as it was built if ``epochs`` is 0.

    The encoder learns to find each text by a few of its words, by words of its category and by
    texts that go with it. It also learns the classes of the targets.

    The state of training is kept in ``workdir/last.ckpt``. If the folder has a checkpoint of the
    same samples, configuration and seed, training is resumed from it, with the same result as
    without the interruption. On one machine with one number of threads, equal arguments give equal
    results.

    Args:
        samples: Texts to learn from, with any number of targets.
        config: Encoder, schedule and objectives.
        validation: Texts to measure after every epoch, with the same classes.
        workdir: Folder for checkpoints; it is created, and never deleted.
        seed: Random seed of the run.
        progress: Whether to show Lightning's progress bar.
        device: Device to compute on; auto is CUDA if there is a card, else the processor.

    Raises:
        InvalidArgumentError: If the samples have nothing that a loss learns from, or the validation
            samples, the targets or the trained layers of the checkpoint do not fit.
        TrainingError: If the loss is not finite, or workdir has the checkpoint of another run.
        WeightsError: If the configured checkpoint is not on this machine.
        CheckpointError: If the configured checkpoint cannot be used.
        MissingExtraError: If low-rank updates are configured, but peft is not installed.
    """
    check_samples(samples, config, validation)
    run = TrainingRun(
        workdir=workdir,
        seed=seed,
        fingerprint=_fingerprint(samples, validation, config, seed),
        device=resolve_device(device),
        progress=progress,
    )
    # Dropout draws from torch's global generator, whose state is restored afterwards.
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(seed)
        encoder = build_encoder(config, [*samples.texts, *samples.category_texts], seed=seed)
        epochs = 0
        metrics: dict[str, float] = {}
        if config.epochs > 0:
            epochs, metrics = _train(encoder, samples, validation, config, run)
    if validation is not None:
        hit_rate = word_query_hit_rate(encoder, validation.texts, seed=seed, device=run.device)
        metrics["word_query/hit_rate@10"] = hit_rate
    return FinetuneResult(encoder.cpu().eval(), metrics, epochs)


def _train(
    encoder: TextEncoder,
    samples: Samples,
    validation: Samples | None,
    config: TextConfig,
    run: TrainingRun,
) -> tuple[int, dict[str, float]]:
    """Train the encoder in place and return the number of epochs and the validation metrics."""
    restrict_learning(encoder, config.transfer)
    run.workdir.mkdir(parents=True, exist_ok=True)
    held_out = None if validation is None else TextSet(validation, encoder)
    data = _Data(TextSet(samples, encoder), held_out)
    learner = Learner(
        encoder,
        config,
        classes=samples.classes,
        total_steps=config.epochs * _steps_per_epoch(len(samples), config),
        seed=run.seed,
    )
    encoder.train()
    settings = fit_settings(config)
    epochs = _fit(learner, data, settings, run)
    merge_lora(encoder)
    return epochs, _validate(learner, data, settings, run)


def check_samples(samples: Samples, config: TextConfig, validation: Samples | None) -> None:
    """Raise unless the configuration fits the samples; nothing is read or trained.

    Args:
        samples: Texts to learn from.
        config: Configuration of the run.
        validation: Texts to measure after every epoch, if any.

    Raises:
        InvalidArgumentError: If they do not fit each other.
    """
    unknown = sorted(set(config.target_weights) - set(samples.classes))
    if unknown:
        raise InvalidArgumentError(
            f"target_weights must name targets of the samples "
            f"({', '.join(samples.classes) or 'none'}), got {unknown}"
        )
    if validation is not None and _names(validation) != _names(samples):
        raise InvalidArgumentError(
            "validation samples must have the targets and classes of the samples"
        )
    if config.epochs == 0:
        return
    if len(samples) < 2:
        raise InvalidArgumentError(
            f"samples must have at least 2 texts to learn from, got {len(samples)}"
        )
    material = {
        "contrastive_weight": True,  # every text has words
        "category_weight": any(samples.category_texts),
        "pair_weight": len(samples.pairs) > 0,
        "class_weight": len(samples.classes) > 0,
    }
    if not any(there and getattr(config, name) > 0 for name, there in material.items()):
        raise InvalidArgumentError(
            "nothing to learn from: contrastive_weight is 0, and so is the weight of whatever the "
            "samples have of targets, categories and pairs; set one of them, or epochs = 0 to keep "
            "the encoder as it is"
        )
    if config.patience is not None and validation is None:
        raise InvalidArgumentError(
            f"patience = {config.patience} needs validation samples, got none; leave it unset"
        )


def check_start(config: TextConfig) -> None:
    """Raise unless a checkpoint on this machine can be loaded and trained as configured.

    What a hub has is left to training, which may download it.

    Raises:
        WeightsError: If the checkpoint is neither a folder nor a hub id.
        CheckpointError: If it is damaged or not supported.
        InvalidArgumentError: If it does not have the layers to train.
        MissingExtraError: If low-rank updates are configured, but peft is not installed.
    """
    name = config.checkpoint
    if name in (None, AUTO) or (is_hub_id(name) and find_installed(name) is None):
        return
    encoder = build_encoder(config, [], seed=0)
    if config.epochs > 0:
        restrict_learning(encoder, config.transfer)


def _steps_per_epoch(count: int, config: TextConfig) -> int:
    batches = max(1, min(count, config.texts_per_epoch) // config.batch_size)
    return math.ceil(batches / config.accumulate)


def _names(samples: Samples) -> list[tuple[str, list[str]]]:
    return [(target, list(names)) for target, names in samples.classes.items()]


def _fingerprint(
    samples: Samples, validation: Samples | None, config: TextConfig, seed: int
) -> str:
    """Return a digest of everything that a run depends on, so that no other run is resumed."""
    digest = hashlib.sha256(f"{config.model_dump_json()} {seed}".encode())
    for part in (samples, validation):
        if part is not None:
            digest.update(repr((_names(part), [*part.texts], part.category_texts)).encode())
            digest.update(part.pairs.tobytes())
            for labels in part.targets.values():
                digest.update(labels.tobytes())
    return digest.hexdigest()


def _fit(learner: Learner, data: _Data, settings: FitSettings, run: TrainingRun) -> int:
    """Train, from the last checkpoint if there is one, and return the number of epochs."""
    size, most = learner.config.batch_size, learner.config.texts_per_epoch
    if len(data.train) > most:
        logger.warning("an epoch has %d of the %d texts (texts_per_epoch)", most, len(data.train))
    return fit(
        learner,
        build_loader(data.train, size, EpochShuffle(len(data.train), run.seed, most)),
        None if data.validation is None else build_loader(data.validation, size),
        settings,
        run,
    )


def _validate(
    learner: Learner, data: _Data, settings: FitSettings, run: TrainingRun
) -> dict[str, float]:
    """Return the validation metrics of the weights that the run keeps."""
    if data.validation is None:
        return {}
    trainer = build_trainer(settings, replace(run, progress=False), [])
    loader = build_loader(data.validation, learner.config.batch_size)
    (metrics,) = trainer.validate(learner, loader, verbose=False)
    return {name.removeprefix("validation/"): float(value) for name, value in metrics.items()}
