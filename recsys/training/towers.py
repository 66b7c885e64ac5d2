"""Train the two towers on a shop's tables, and run them over its items and photos."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import text.checkpoint
import text.dataset
import text.finetuning
import vision.checkpoint
import vision.dataset
import vision.finetuning
from recsys.catalogue.embedder import Modalities, item_texts
from recsys.config import TrainConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import Ints
from recsys.training.labels import (
    Labels,
    item_labels,
    photo_labels,
    photo_rows,
    title_groups,
    with_identity,
)
from text.encoder import TextEncoder
from vision.tower import VisionTower

TOWER = "tower"
METRICS = "metrics.json"


def label_pictures(dataset: Dataset) -> Labels:
    """Return what pictures are labelled with: categories, attributes and, with photos, the product.

    Photos give a product more than one picture, so that it can be learned as a class of its own;
    without categories and attributes there is nothing else to learn.
    """
    labels = item_labels(dataset.items)
    with_photos = dataset.photos is not None and dataset.photos["item_id"].count() > 0
    if with_photos or not labels.classes:
        return with_identity(labels, dataset.items["item_id"].to_list())
    return labels


class PictureSamples(NamedTuple):
    """A shop's pictures, by what they are for."""

    train: vision.dataset.Samples  # item pictures, and photos of train that have a label
    validation: vision.dataset.Samples | None  # photos of val
    test: vision.dataset.Samples | None  # photos of test
    unlabelled: tuple[Path, ...]  # photos of train that have none


def picture_samples(dataset: Dataset, labels: Labels) -> PictureSamples:
    """Return the pictures of the items and of every split of the photos, with their labels."""
    items = dataset.items.with_row_index("row").filter(pl.col("image").is_not_null())
    train = _samples(dataset, items["image"], labels.of_rows(_rows(items["row"])))
    if dataset.photos is None:
        return PictureSamples(train, None, None, ())
    of_split = {
        split: _photo_samples(
            dataset, dataset.photos.filter(pl.col("split").fill_null("train") == split), labels
        )
        for split in ("train", "val", "test")
    }
    photos = of_split["train"]
    known = (np.stack([*photos.targets.values()]) != vision.dataset.UNKNOWN).any(axis=0)
    return PictureSamples(
        train=_concatenate(train, photos.take(np.flatnonzero(known))),
        validation=of_split["val"] if len(of_split["val"]) else None,
        test=of_split["test"] if len(of_split["test"]) else None,
        unlabelled=tuple(photos.take(np.flatnonzero(~known)).images),
    )


class Captioned(NamedTuple):
    """Pictures, each with what is written about the item on it.

    Args:
        pictures: n pictures, labelled with the classes of the vision tower.
        texts: One text per picture.
        groups: Pictures of equal number show items that words do not tell apart, int64 (n,): never
            negatives of each other.
    """

    pictures: vision.dataset.Samples
    texts: Sequence[str]
    groups: Ints


def captioned_pictures(dataset: Dataset, labels: Labels) -> Captioned:
    """Return item pictures, and photos of train that name their item, with the items' texts.

    Items without a text are left out.
    """
    items = dataset.items.with_row_index("row").filter(pl.col("image").is_not_null())
    rows = _rows(items["row"])
    pictures = _samples(dataset, items["image"], labels.of_rows(rows))
    if dataset.photos is not None:
        photos = dataset.photos.filter(pl.col("split").fill_null("train") == "train")
        pictures = _concatenate(pictures, _photo_samples(dataset, photos, labels))
        rows = np.concatenate([rows, photo_rows(photos, dataset.items)])
    texts = item_texts(dataset.items)
    kept = np.flatnonzero([row >= 0 and texts[row] is not None for row in rows])
    rows = rows[kept]
    return Captioned(
        pictures=pictures.take(kept),
        texts=[texts[row] or "" for row in rows],
        groups=title_groups(dataset.items)[rows],
    )


def train_vision(
    dataset: Dataset, labels: Labels, config: TrainConfig, folder: Path, *, progress: bool
) -> None:
    """Fine-tune the vision tower on item pictures and training photos; leave it in ``folder``.

    Photos of the val split, where there are any, are measured after every epoch. Photos without a
    label serve self-supervised pretraining, where that is configured.
    """
    samples = picture_samples(dataset, labels)
    result = vision.finetuning.finetune(
        samples.train,
        config.vision,
        validation=samples.validation,
        unlabelled=samples.unlabelled,
        workdir=folder / "checkpoints",
        seed=config.seed,
        progress=progress,
        device=config.device,
    )
    vision.checkpoint.save(result.tower, folder / TOWER)
    (folder / METRICS).write_text(json.dumps(result.metrics))


def text_samples(items: pl.DataFrame, labels: Labels, pairs: Ints) -> text.dataset.Samples:
    """Return titles and descriptions of the items that have any, and what is known of those.

    Args:
        items: Table of ``ItemSchema``.
        labels: Of all items.
        pairs: Rows of items that go together, int64 (P, 2).
    """
    texts = item_texts(items)
    rows = np.flatnonzero([one is not None for one in texts])
    known = labels.of_rows(rows)
    paths = items["category"].to_list()
    positions = np.full(len(texts), -1)
    positions[rows] = np.arange(len(rows))
    pairs = positions[pairs]
    return text.dataset.Samples(
        texts=[texts[row] or "" for row in rows],
        targets=known.indices,
        classes=known.classes,
        categories=[paths[row] for row in rows],
        pairs=pairs[(pairs >= 0).all(axis=1)],
    )


def train_text(
    samples: text.dataset.Samples, config: TrainConfig, folder: Path, *, progress: bool
) -> None:
    """Fine-tune the text encoder on the shop's texts; leave it in ``folder``."""
    result = text.finetuning.finetune(
        samples,
        config.text,
        workdir=folder / "checkpoints",
        seed=config.seed,
        progress=progress,
        device=config.device,
    )
    text.checkpoint.save(result.encoder, folder / TOWER)
    (folder / METRICS).write_text(json.dumps(result.metrics))


def embed_dataset(
    dataset: Dataset,
    tower: VisionTower | None,
    encoder: TextEncoder | None,
    folder: Path,
    *,
    device: str,
    progress: bool,
) -> None:
    """Run the towers over all items and photos; leave the embeddings in ``folder``."""
    arrays: dict[str, NDArray[np.float32]] = {}
    if encoder is not None:
        texts = item_texts(dataset.items)
        known = np.array([one is not None for one in texts])
        vectors = encoder.embed([one for one in texts if one], device=device, progress=progress)
        arrays["item_text"] = _spread(vectors, known)
    if tower is not None:
        images = dataset.items["image"]
        paths = picture_paths(dataset, images.drop_nulls())
        vectors = tower.embed(paths, device=device, progress=progress)
        arrays["item_image"] = _spread(vectors, images.is_not_null().to_numpy())
        if dataset.photos is not None:
            paths = picture_paths(dataset, dataset.photos["image"])
            arrays["photo_image"] = tower.embed(paths, device=device, progress=progress)
    save_file(arrays, folder / "embeddings.safetensors")


def load_embeddings(folder: Path) -> tuple[Modalities, NDArray[np.float32] | None]:
    """Return the item embeddings by modality and the photos' embeddings (n, D_image)."""
    arrays = load_file(folder / "embeddings.safetensors")
    photos = arrays.pop("photo_image", None)
    embeddings = {name.removeprefix("item_"): values for name, values in arrays.items()}
    present = {name: (values != 0).any(axis=1) for name, values in embeddings.items()}
    return Modalities(embeddings, present), photos


def picture_paths(dataset: Dataset, images: pl.Series) -> list[Path]:
    """Return the files of pictures that the tables name."""
    if dataset.images_root is None:
        return []
    return [dataset.images_root / image for image in images]


def _rows(series: pl.Series) -> NDArray[np.int64]:
    return series.cast(pl.Int64).to_numpy()


def _samples(dataset: Dataset, images: pl.Series, labels: Labels) -> vision.dataset.Samples:
    return vision.dataset.Samples(
        images=picture_paths(dataset, images),
        targets=labels.indices,
        classes=labels.classes,
    )


def _photo_samples(
    dataset: Dataset, photos: pl.DataFrame, labels: Labels
) -> vision.dataset.Samples:
    known = photo_labels(photos, dataset.items, labels)
    return _samples(dataset, photos["image"], known)


def _concatenate(
    first: vision.dataset.Samples, second: vision.dataset.Samples
) -> vision.dataset.Samples:
    targets: Mapping[str, NDArray[np.int64]] = {
        name: np.concatenate([first.targets[name], second.targets[name]]) for name in first.targets
    }
    return vision.dataset.Samples([*first.images, *second.images], targets, first.classes)


def _spread(vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return vectors at the known positions (N, D_m) and zeros elsewhere."""
    spread = np.zeros((len(known), vectors.shape[1]), dtype=np.float32)
    spread[known] = vectors
    return spread
