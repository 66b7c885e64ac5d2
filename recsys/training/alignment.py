"""Train both towers and a fusion together, so that pictures and titles of an item meet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

import text.checkpoint
import vision.checkpoint
from recsys.config import AlignmentConfig, FusionConfig
from recsys.errors import InvalidArgumentError
from recsys.models.fusion import ItemFusion, build_fusion
from recsys.models.losses import info_nce
from recsys.training.loop import WARMUP_SHARE, fit
from recsys.training.rows import EpochSampler
from recsys.training.samples import Captioned
from recsys.training.tower_errors import translate_tower_errors
from text.encoder import TextEncoder, pad
from text.training.queries import TokenizedText, tokenize_words
from vision.dataset import UNKNOWN, Batch, PictureSet, Samples, decode_samples
from vision.squares import stored_preprocess
from vision.tower import VisionTower
from vision.training.augment import augment
from vision.training.growth import grown_size
from vision.training.presets import get_augmentation
from vision.training.run import FitSettings, TrainingRun
from vision.training.schedule import with_schedule
from vision.training.seeds import step_seed
from vision.training.trainer import keep_batch

# The limit that CLIP uses: below it, training becomes unstable.
MIN_TEMPERATURE = 0.01

SCALE_SAMPLE = 1_024  # pictures with texts to compute the fusion's mean and deviation from
VISION, TEXT, FUSION = "vision", "text", "fusion.safetensors"  # in the stage's folder


class Towers(NamedTuple):
    """The vision tower and the text encoder of one shop."""

    vision: VisionTower
    text: TextEncoder


def align_towers(
    captioned: Captioned,
    towers: Towers,
    config: AlignmentConfig,
    fusion_config: FusionConfig,
    folder: Path,
    run: TrainingRun,
    *,
    cache_gb: float = 4.0,
) -> None:
    """Train towers and a new fusion on pictures with texts, and write them into a folder.

    Args:
        captioned: Pictures to learn from, each with its item's text.
        towers: Towers to train further.
        config: Schedule and weights of the losses.
        fusion_config: Kind and sizes of the fusion.
        folder: Folder that the results are written into.
        run: Folder of the checkpoints, seed and device.
        cache_gb: Memory in GB for decoded pictures; more are kept in a file in the run's folder.

    Raises:
        InvalidArgumentError: If the pictures, texts and towers do not fit each other.
        TrainingError: If no picture can be read or the loss is not finite.
    """
    fusion = _untrained_fusion(towers, fusion_config, run.seed)
    align(captioned, towers, fusion, config, run, cache_gb=cache_gb)
    vision.checkpoint.save(towers.vision, folder / VISION)
    text.checkpoint.save(towers.text, folder / TEXT)
    weights = {name: value.contiguous() for name, value in fusion.state_dict().items()}
    save_file(weights, folder / FUSION)


def load_towers(folder: Path) -> Towers:
    """Return the towers that ``align_towers`` wrote."""
    return Towers(vision.checkpoint.load(folder / VISION), text.checkpoint.load(folder / TEXT))


def load_fusion(folder: Path, towers: Towers, config: FusionConfig) -> ItemFusion:
    """Return the fusion that ``align_towers`` wrote, for the towers that it wrote."""
    fusion = _untrained_fusion(towers, config, seed=0)  # its weights are replaced
    fusion.load_state_dict(load_file(folder / FUSION))
    return fusion.eval()


def _untrained_fusion(towers: Towers, config: FusionConfig, seed: int) -> ItemFusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_fusion(config, {"image": towers.vision.dim, "text": towers.text.dim})


@translate_tower_errors()
def align(
    captioned: Captioned,
    towers: Towers,
    fusion: ItemFusion,
    config: AlignmentConfig,
    run: TrainingRun,
    *,
    cache_gb: float = 4.0,
) -> None:
    """Train towers and fusion in place: a picture's embedding comes near that of its text.

    Contrastive learning as in CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020), from
    towers that have already learned classes and words. It differs in three ways. Items with the
    same text are not negatives of each other. Words are left out at random. The classifiers of the
    vision tower go on learning, so that they still fit their backbone. Pictures and texts are
    compared in the item space, each fused alone. How to fuse both is learned afterwards by
    :func:`recsys.training.items.train_items`, which starts from this fusion.

    Args:
        captioned: Pictures to learn from, each with its item's text.
        towers: Towers to train; they end in evaluation mode on the processor, as the fusion does.
        fusion: Untrained fusion of the modalities "image" and "text".
        config: Schedule and weights of the losses.
        run: Folder of the checkpoints, seed and device. An interrupted run is resumed from it.
        cache_gb: Memory in GB for decoded pictures; more are kept in a file in the run's folder.

    Raises:
        InvalidArgumentError: If there is not one text and group for each picture, there are fewer
            than two pictures, or their classes are not those of the tower.
        TrainingError: If no picture can be read, the loss is not finite, or the checkpoint is of
            another run.
        FileAccessError: If a file cannot be written.
    """
    _check(captioned, towers.vision)
    pictures = _decoded(captioned.pictures, towers.vision, config, run, cache_gb)
    _fit(pictures, captioned, towers, fusion, config, run)
    for part in (*towers, fusion):
        part.cpu().eval()


def _decoded(
    samples: Samples,
    tower: VisionTower,
    config: AlignmentConfig,
    run: TrainingRun,
    cache_gb: float,
) -> PictureSet:
    """Return decoded pictures, in memory, or in a temporary file if they take over cache_gb."""
    stored = stored_preprocess(tower.preprocess, config.train_size or tower.preprocess.size)
    spill = None
    if 3 * len(samples) * stored.size**2 > cache_gb * 1e9:
        run.workdir.mkdir(parents=True, exist_ok=True)
        spill = run.workdir
    return decode_samples(samples, stored, spill=spill, progress=run.progress)


def _fit(
    pictures: PictureSet,
    captioned: Captioned,
    towers: Towers,
    fusion: ItemFusion,
    config: AlignmentConfig,
    run: TrainingRun,
) -> None:
    """Train towers and fusion in place on decoded pictures with texts."""
    batch_size = min(config.batch_size, len(pictures))
    per_epoch = len(pictures) // batch_size
    sampler = EpochSampler(
        lambda rng: rng.permutation(len(pictures))[: per_epoch * batch_size],
        per_epoch * batch_size,
        seed=run.seed,
    )
    batches = DataLoader(pictures, batch_size=batch_size, sampler=sampler, collate_fn=keep_batch)
    module = _Alignment(
        towers, fusion, captioned, config, seed=run.seed, n_steps=config.epochs * per_epoch
    )
    rows = np.random.default_rng(run.seed).permutation(len(pictures))[:SCALE_SAMPLE].tolist()
    module.fit_scale(pictures.__getitems__(rows))
    settings = FitSettings(epochs=config.epochs, precision=config.precision)
    fit(module.train(), batches, None, settings, run)


class _Alignment(L.LightningModule):
    """Lightning module of :func:`align`; a batch holds pictures."""

    groups: Tensor

    def __init__(
        self,
        towers: Towers,
        fusion: ItemFusion,
        captioned: Captioned,
        config: AlignmentConfig,
        *,
        seed: int,
        n_steps: int,
    ) -> None:
        super().__init__()
        self.tower, self.encoder = towers
        self.fusion = fusion
        self.config, self.seed, self.n_steps = config, seed, n_steps
        self.texts: list[TokenizedText] = tokenize_words(self.encoder, captioned.texts)
        self.register_buffer("groups", torch.from_numpy(captioned.groups), persistent=False)
        self.log_temperature = nn.Parameter(torch.tensor(config.temperature).log())
        self.augmentation = get_augmentation(config.augmentation)

    @torch.inference_mode()
    def fit_scale(self, batch: Batch) -> None:
        """Set the scale of the fusion's inputs from the towers' embeddings of a batch."""
        pictures = augment(
            batch.pictures,
            batch.aspects,
            get_augmentation("none"),
            self.tower.preprocess,
            size=self.config.train_size or self.tower.preprocess.size,
            generator=torch.Generator(),
        )
        texts = [self.texts[row].ids() for row in batch.rows.tolist()]
        embeddings = {
            "image": self.tower.eval()(pictures.contiguous(memory_format=torch.channels_last)),
            "text": self.encoder.eval()(*pad(texts, self.encoder.pad_id)),
        }
        self.fusion.fit_scale(embeddings)

    def configure_optimizers(self) -> Any:
        """Return AdamW with one learning rate for the vision tower and one for everything else."""
        config = self.config
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, weight in self.named_parameters():
            seeing = name.startswith("tower.")
            rate = config.picture_learning_rate if seeing else config.learning_rate
            groups.setdefault((rate, weight.ndim > 1), []).append(weight)
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": weights,
                    "lr": rate,
                    "weight_decay": config.weight_decay if matrices else 0.0,
                }
                for (rate, matrices), weights in groups.items()
            ]
        )
        return with_schedule(optimizer, warmup_share=WARMUP_SHARE, total_steps=self.n_steps)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the weighted sum of the losses of one batch."""
        pictures = augment(
            batch.pictures,
            batch.aspects,
            self.augmentation,
            self.tower.preprocess,
            size=grown_size(
                self.current_epoch,
                start=self.config.start_size,
                full=self.config.train_size or self.tower.preprocess.size,
                epochs=self.config.epochs,
            ),
            generator=torch.Generator().manual_seed(
                step_seed(self.seed, self.global_step, "augmentation")
            ),
        )
        output = self.tower.outputs(pictures.contiguous(memory_format=torch.channels_last))
        seed = step_seed(self.seed, self.global_step, "words")
        words = self._embed_texts(batch.rows, np.random.default_rng(seed))
        with torch.autocast(self.device.type, enabled=False):
            seen = self.fusion.encode({"image": output.embeddings.float()})
            read = self.fusion.encode({"text": words.float()})
        temperature = self.log_temperature.exp().clamp(min=MIN_TEMPERATURE)
        contrast = info_nce(read, seen, self.groups[batch.rows], temperature=temperature)
        loss = contrast + self.config.head_weight * _heads_loss(output.logits, batch.targets)
        self.log("loss", loss, prog_bar=True)
        return loss

    def _embed_texts(self, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the encoder's embeddings (B, D_text) of texts with some words left out."""
        texts = [self.texts[row] for row in rows.tolist()]
        kept = [_without_some(text, self.config.word_dropout, rng) for text in texts]
        ids, mask = pad(kept, self.encoder.pad_id)
        embedded: Tensor = self.encoder(ids.to(self.device), mask.to(self.device))
        return embedded


def _without_some(text: TokenizedText, share: float, rng: np.random.Generator) -> list[int]:
    """Return the token ids of a text with a share of its words left out, but never all words."""
    kept = np.flatnonzero(rng.random(len(text.words)) >= share)
    return text.ids(kept.tolist() if len(kept) else None)


def _heads_loss(logits: Mapping[str, Tensor], targets: Tensor) -> Tensor:
    """Return the cross-entropy of the known labels, averaged over the targets, a scalar."""
    losses = []
    for column, values in enumerate(logits.values()):
        labels = targets[:, column]
        known = (labels != UNKNOWN).sum().clamp(min=1)
        total = nn.functional.cross_entropy(values, labels, ignore_index=UNKNOWN, reduction="sum")
        losses.append(total / known)
    return torch.stack(losses).mean() if losses else targets.new_zeros((), dtype=torch.float32)


def _check(captioned: Captioned, tower: VisionTower) -> None:
    count = len(captioned.pictures)
    if len(captioned.texts) != count or captioned.groups.shape != (count,):
        raise InvalidArgumentError(
            f"texts and groups must have one entry per picture ({count}), got "
            f"{len(captioned.texts)} and {captioned.groups.shape}"
        )
    if count < 2:
        raise InvalidArgumentError(f"alignment needs at least 2 pictures with a text, got {count}")
    classes = {name: tuple(names) for name, names in captioned.pictures.classes.items()}
    if classes != tower.classes:
        raise InvalidArgumentError(
            f"pictures must be labelled with the tower's classes {list(tower.classes)}, "
            f"got {list(classes)}"
        )
