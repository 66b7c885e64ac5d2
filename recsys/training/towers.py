"""The towers, each a stage, and what they see of the items: vision, text, alignment, embeddings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import text.checkpoint
import text.dataset
import text.finetuning
import text.networks.hub
import vision.checkpoint
import vision.finetuning
from recsys.catalogue.embedder import Modalities, item_texts
from recsys.config import TrainConfig
from recsys.data.arrays import Floats
from recsys.data.dataset import Dataset
from recsys.data.files import whole_file
from recsys.models.fusion import ItemFusion
from recsys.training.alignment import Towers, align_towers, load_fusion, load_towers
from recsys.training.inputs import Material, ShopData
from recsys.training.items import ItemPhotos
from recsys.training.labels import photo_rows
from recsys.training.parts import TEXT_TRAINING
from recsys.training.samples import (
    PictureSamples,
    captioned_pictures,
    label_pictures,
    picture_paths,
    training_photos,
)
from recsys.training.stages import Runtime, Trained, hash_files
from text.config import TextConfig
from text.encoder import TextEncoder
from vision.config import VisionConfig
from vision.networks.start import decide_start
from vision.networks.weights import find_origin
from vision.tower import VisionTower
from vision.training.recipe import decide_recipe

TOWER = "tower"
METRICS = "metrics.json"
EMBEDDINGS = "embeddings.safetensors"


@dataclass(frozen=True)
class TrainedTowers:
    """The towers that items are embedded with.

    Args:
        vision: Tower for pictures, or None without any.
        text: Encoder for titles, or None without any.
        fusion: Fusion that both were aligned with, or None.
        keys: Keys of the stages that trained them.
    """

    vision: VisionTower | None
    text: TextEncoder | None
    fusion: ItemFusion | None
    keys: tuple[str, ...]


def train_vision(
    shop: ShopData, config: VisionConfig, runtime: Runtime
) -> Trained[VisionTower] | None:
    """Return the tower of the stage "vision", or None if the shop cannot train it."""
    if "vision" in shop.left_out:
        return None
    config = decide_recipe(decide_start(config), shop.pictures.train)
    origin = find_origin(config.backbone, config.pretrained)
    stage = runtime.workspace.run(
        "vision",
        {
            "tables": shop.vision_key,
            "photos": "classes",  # what is learned from them, beside the classes of the items
            "seed": runtime.seed,
            "config": config.model_dump(),
            "weights": [
                hash_files(config.pretrained),
                hash_files(config.backbone.removeprefix("transformers/")),
            ],
            # A tower that began with published weights says with which since the key has them.
            **({} if origin is None else {"origin": origin.model_dump()}),
        },
        lambda folder: finetune_vision(shop.pictures, config, folder, runtime),
    )
    return Trained(vision.checkpoint.load(stage.folder / TOWER), stage.key)


def train_text(shop: ShopData, config: TextConfig, runtime: Runtime) -> Trained[TextEncoder] | None:
    """Return the encoder of the stage "text", or None if the shop cannot train it."""
    if "text" in shop.left_out:
        return None
    if TEXT_TRAINING in shop.left_out:
        config = config.model_copy(update={"epochs": 0})
    named = config.checkpoint
    started = None if named is None else text.networks.hub.find_origin(named)
    stage = runtime.workspace.run(
        "text",
        {
            "tables": shop.towers_key,
            "seed": runtime.seed,
            "pairs": hashlib.sha256(shop.pairs.tobytes()).hexdigest(),
            "config": config.model_dump(),
            "weights": hash_files(config.checkpoint),
            # As for vision.
            **({} if started is None else {"origin": started.model_dump()}),
        },
        lambda folder: finetune_text(shop.texts, config, folder, runtime),
    )
    return Trained(text.checkpoint.load(stage.folder / TOWER), stage.key)


def align(
    shop: ShopData,
    tower: Trained[VisionTower] | None,
    encoder: Trained[TextEncoder] | None,
    config: TrainConfig,
    runtime: Runtime,
) -> TrainedTowers:
    """Return the towers after the stage "alignment", where it is configured and possible."""
    wanted = config.alignment.epochs and "alignment" not in shop.left_out
    if tower is None or encoder is None or not wanted:
        trained = [one for one in (tower, encoder) if one is not None]
        return TrainedTowers(
            vision=tower.network if tower is not None else None,
            text=encoder.network if encoder is not None else None,
            fusion=None,
            keys=tuple(one.key for one in trained),
        )
    apart, dataset = Towers(tower.network, encoder.network), shop.dataset
    stage = runtime.workspace.run(
        "alignment",
        {
            "tables": shop.towers_key,
            "seed": runtime.seed,
            "towers": [tower.key, encoder.key],
            "config": config.alignment.model_dump(),
            "fusion": config.fusion.model_dump(include={"kind", "dim", "hidden", "dropout"}),
        },
        lambda folder: align_towers(
            captioned_pictures(dataset, label_pictures(dataset), shop.title_groups).read_by(
                runtime.read
            ),
            apart,
            config.alignment,
            config.fusion,
            folder,
            runtime.training_run(folder),
            cache_gb=config.vision.cache_gb,
        ),
    )
    aligned = load_towers(stage.folder)
    return TrainedTowers(*aligned, load_fusion(stage.folder, aligned, config.fusion), (stage.key,))


def embed(shop: ShopData, towers: TrainedTowers, runtime: Runtime) -> Material:
    """Return the material with the embeddings of the stage "embeddings"."""
    stage = runtime.workspace.run(
        "embeddings",
        {"tables": shop.towers_key, "towers": towers.keys, "photos": "train"},
        lambda folder: embed_dataset(shop.dataset, towers, folder, runtime),
    )
    modalities, embeddings = load_embeddings(stage.folder)
    photos = None
    if embeddings is not None:
        rows = photo_rows(training_photos(shop.dataset), shop.dataset.items)
        photos = ItemPhotos(embeddings, rows)
    return Material(shop, modalities, photos, towers.fusion, key=f"{stage.key}-{shop.key}")


def finetune_vision(
    samples: PictureSamples, config: VisionConfig, folder: Path, runtime: Runtime
) -> None:
    """Fine-tune the vision tower on item pictures and training photos; leave it in ``folder``.

    Photos of the val split, where there are any, are measured after every epoch. Photos without a
    label serve self-supervised pretraining, where that is configured.
    """
    result = vision.finetuning.finetune(
        replace(samples.train, unlabelled=samples.unlabelled, read=runtime.read),
        config,
        validation=samples.validation and replace(samples.validation, read=runtime.read),
        workdir=folder / "checkpoints",
        seed=runtime.seed,
        progress=runtime.progress,
        device=runtime.device,
    )
    vision.checkpoint.save(result.tower, folder / TOWER)
    _write_metrics(result.metrics, folder)


def finetune_text(
    samples: text.dataset.Samples, config: TextConfig, folder: Path, runtime: Runtime
) -> None:
    """Fine-tune the text encoder on the shop's texts; leave it in ``folder``."""
    result = text.finetuning.finetune(
        samples,
        config,
        workdir=folder / "checkpoints",
        seed=runtime.seed,
        progress=runtime.progress,
        device=runtime.device,
    )
    text.checkpoint.save(result.encoder, folder / TOWER)
    _write_metrics(result.metrics, folder)


def embed_dataset(dataset: Dataset, towers: TrainedTowers, folder: Path, runtime: Runtime) -> None:
    """Embed all items, and the photos to train on; leave the embeddings in ``folder``."""
    arrays: dict[str, Floats] = {}
    device, progress = runtime.device, runtime.progress
    if towers.text is not None:
        texts = item_texts(dataset.items)
        known = np.array([one is not None for one in texts])
        vectors = towers.text.embed([one for one in texts if one], device=device, progress=progress)
        arrays["item_text"] = _spread(vectors, known)
    if towers.vision is not None:
        images = dataset.items["image"]
        vectors = _embed_pictures(towers.vision, dataset, images.drop_nulls(), runtime)
        arrays["item_image"] = _spread(vectors, images.is_not_null().to_numpy())
        if dataset.photos is not None:
            shown = training_photos(dataset)["image"]
            arrays["photo_image"] = _embed_pictures(towers.vision, dataset, shown, runtime)
    save_file(arrays, folder / EMBEDDINGS)


def _embed_pictures(
    tower: VisionTower, dataset: Dataset, images: pl.Series, runtime: Runtime
) -> Floats:
    """Return the tower's embeddings of pictures that a table names (n, D_image)."""
    return tower.embed(
        picture_paths(dataset, images),
        device=runtime.device,
        progress=runtime.progress,
        read=runtime.read,
    )


def load_embeddings(folder: Path) -> tuple[Modalities, Floats | None]:
    """Return the embeddings of the items by modality, and of the training photos (n, D_image)."""
    arrays = load_file(folder / EMBEDDINGS)
    photos = arrays.pop("photo_image", None)
    embeddings = {name.removeprefix("item_"): values for name, values in arrays.items()}
    present = {name: (values != 0).any(axis=1) for name, values in embeddings.items()}
    return Modalities(embeddings, present), photos


def _write_metrics(metrics: Mapping[str, float], folder: Path) -> None:
    with whole_file(folder / METRICS) as path:
        path.write_text(json.dumps(metrics))


def _spread(vectors: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return vectors at the known positions (N, D_m) and zeros elsewhere."""
    spread = np.zeros((len(known), vectors.shape[1]), dtype=np.float32)
    spread[known] = vectors
    return spread
