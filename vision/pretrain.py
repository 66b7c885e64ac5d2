"""Pretrain a backbone on pictures without labels."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from vision.config import VisionConfig
from vision.dataset import EpochShuffle, PictureSet, Rejected, Samples, decode_samples
from vision.device import Device, resolve_device
from vision.errors import InvalidArgumentError, TrainingError
from vision.file_states import hash_states, hash_weights
from vision.files import whole_files
from vision.networks.backbones import Backbone, build_backbone
from vision.networks.start import decide_start, warn_of_random_weights
from vision.networks.weights import SPEC_FILE
from vision.squares import stored_preprocess
from vision.training.callbacks import build_callbacks
from vision.training.checkpoints import load_kept, read_checkpoint, read_last
from vision.training.processes import WHOLE, current_shard
from vision.training.run import FitSettings, TrainingRun
from vision.training.selfsupervised import SelfSupervised
from vision.training.siamese import build_method
from vision.training.silence import quiet_lightning
from vision.training.tracking import open_logger
from vision.training.trainer import build_loader, build_trainer
from vision.transforms import Preprocess

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
# Below this spread, the projections of different pictures hardly differ. Good runs end far above.
COLLAPSED = 0.1


class PretrainResult(NamedTuple):
    """A pretrained backbone's folder and how the run went."""

    folder: Path  # what VisionConfig.pretrained may name
    losses: tuple[float, ...]  # mean loss of every epoch
    spread: tuple[float, ...]  # mean spread of the projections in every epoch; 0 has collapsed
    epochs: int
    rejected: tuple[Rejected, ...]  # pictures that could not be read


def pretrain(
    images: Sequence[Path],
    config: VisionConfig,
    *,
    workdir: Path,
    seed: int,
    root: Path | None = None,
    progress: bool = False,
    device: Device = "auto",
) -> PretrainResult:
    """Return the folder of a backbone that was trained on pictures without labels.

    The table ``config.pretraining`` has the method and schedule. The configuration's backbone,
    pretrained, size, drop_path, precision, gradient_clip, cache_gb and tracking are used as in
    fine-tuning. The weights are written to ``workdir/backbone``. To fine-tune them, set
    ``pretrained`` to that folder.

    The state of training is kept in ``workdir/last.ckpt``. If the folder has a checkpoint of the
    same pictures, configuration and seed, training is resumed from it, with the same result as
    without the interruption. On one machine with one number of threads, equal arguments give equal
    results.

    Args:
        images: Picture files; unreadable ones are left out and reported.
        config: Backbone and pretraining.
        workdir: Folder for checkpoints and weights, which is created; not that of fine-tuning.
        seed: Random seed of the run.
        root: Folder that every picture must be in; images are then relative to it.
        progress: Whether to show Lightning's progress bar.
        device: Device to compute on; auto is CUDA if there is a card, else the processor.

    Raises:
        InvalidArgumentError: If the configuration has no table ``pretraining``, or several
            processes train together.
        TrainingError: If fewer than two pictures can be read, the loss is not finite, or workdir
            has the checkpoint of another run.
        WeightsError: If the configured weights are not on this machine.
    """
    return pretrain_run(
        images, config, TrainingRun(workdir, seed, resolve_device(device), progress), root=root
    )


def pretrain_run(
    images: Sequence[Path], config: VisionConfig, run: TrainingRun, *, root: Path | None = None
) -> PretrainResult:
    """Return the result of :func:`pretrain` on a run, whose device may be any CUDA card.

    Args:
        images: Picture files, relative to root where root is given.
        config: Backbone and pretraining.
        run: Folder of checkpoints and weights, seed and device; the fingerprint is computed here.
        root: Folder that every picture must be in.

    Raises:
        VisionError: For the same reasons as :func:`pretrain`.
    """
    plan = config.pretraining
    if plan is None:
        raise InvalidArgumentError("config.pretraining must say how to pretrain, got None")
    if current_shard() != WHOLE:
        raise InvalidArgumentError(
            "pretraining runs in one process; run it first and set pretrained to its folder"
        )
    warn_of_random_weights(config)
    config = decide_start(config)
    run.workdir.mkdir(parents=True, exist_ok=True)
    side = plan.size or config.train_size or config.size
    run = replace(run, fingerprint=_fingerprint(images, root, config, side, run.seed))
    # Weights, dropout and stochastic depth draw from torch's global generator, whose state is
    # restored afterwards.
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(run.seed)
        backbone = build_backbone(
            config.backbone,
            pretrained=config.pretrained,
            size=config.size,
            drop_path=config.drop_path,
        )
        views = backbone.preprocess.model_copy(update={"size": side})
        samples = Samples(images, {}, {}, root=root)
        pictures = _decode(samples, views, config.cache_gb, run)
        learner = SelfSupervised(
            build_method(backbone.network, backbone.dim, plan),
            plan,
            preprocess=views,
            images=images,
            total_steps=plan.epochs * max(1, len(pictures) // plan.batch_size),
            seed=run.seed,
        )
        _fit(learner, pictures, config, run)
    if learner.spreads[-1] < COLLAPSED:
        logger.warning(
            "the projections of all pictures are nearly the same (spread %.3f of 1): the backbone "
            "has learned little; raise batch_size or momentum, or lower learning_rate",
            learner.spreads[-1],
        )
    folder = _write(backbone, run.workdir / "backbone")
    losses, spreads = tuple(learner.losses), tuple(learner.spreads)
    return PretrainResult(folder, losses, spreads, len(losses), pictures.rejected)


def _decode(samples: Samples, views: Preprocess, cache_gb: float, run: TrainingRun) -> PictureSet:
    """Return decoded pictures, in memory, or in a temporary file if they take over cache_gb."""
    stored = stored_preprocess(views, views.size)
    spill = run.workdir if 3 * len(samples) * stored.size**2 > cache_gb * 1e9 else None
    pictures = decode_samples(samples, stored, spill=spill, progress=run.progress)
    if len(pictures) < 2:
        raise TrainingError(f"pretraining needs at least 2 readable pictures, got {len(pictures)}")
    return pictures


def _fingerprint(
    images: Sequence[Path], root: Path | None, config: VisionConfig, side: int, seed: int
) -> str:
    """Return a digest of everything that a run depends on, so that no other run is resumed."""
    fields = {"backbone", "pretrained", "size", "drop_path", "precision", "gradient_clip"}
    described = config.model_dump_json(include={*fields, "pretraining"})
    files = f"{hash_states(images, root)} {hash_weights(config)}"
    return hashlib.sha256(f"{described} {side} {seed} {files}".encode()).hexdigest()


def _fit(
    learner: SelfSupervised, pictures: PictureSet, config: VisionConfig, run: TrainingRun
) -> None:
    """Train, from the last checkpoint if there is one, and load the final weights."""
    plan = learner.config
    settings = FitSettings(
        epochs=plan.epochs, precision=config.precision, gradient_clip=config.gradient_clip
    )
    found = read_last(run)
    if found is None or not found["finished"]:
        callbacks = build_callbacks(settings, run, learner.name_samples)
        order = EpochShuffle(len(pictures), run.seed)
        pin_memory = run.device.type == "cuda"
        name = f"pretrain-{run.seed}"
        with open_logger(config.tracking, run.workdir, name=name) as curves:
            build_trainer(settings, run, callbacks, logger=curves).fit(
                learner,
                build_loader(pictures, plan.batch_size, order, pin_memory=pin_memory),
                ckpt_path=None if found is None else run.checkpoint("last"),
                weights_only=True,  # a checkpoint is data: no object in it is executed
            )
    load_kept(learner, settings, run)
    learner.on_load_checkpoint(read_checkpoint(run.checkpoint("last")))


def _write(backbone: Backbone, folder: Path) -> Path:
    """Write the network's weights completely or not at all, where build_backbone reads them."""
    # transformers expects the names of its own network, without our module around it.
    inner = backbone.spec.architecture is not None
    network = backbone.network.get_submodule("network") if inner else backbone.network
    weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_files(folder, last=WEIGHTS_FILE) as scratch:
        save_file(weights, scratch / WEIGHTS_FILE, metadata={"format": "pt"})
        (scratch / SPEC_FILE).write_text(backbone.spec.model_dump_json(), encoding="utf-8")
    return folder
