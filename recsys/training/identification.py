"""Build what tells the product on a photo: gallery and calibration, from labelled photos."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from recsys.catalogue import Catalogue
from recsys.config import IdentificationConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import Ints
from recsys.embedding import Modalities
from recsys.models.calibration import Calibration, fit_calibration, take_evenly
from recsys.models.fusion import ItemFusion
from recsys.models.gallery import Gallery, Photos, collect_evidence
from recsys.models.photos import fuse_pictures, look
from recsys.schema import PhotoSchema
from recsys.training.items import IMAGE
from recsys.training.labels import UNKNOWN, category_names, photo_rows
from vision.tower import VisionTower
from vision.views import Views

PHOTOS_FILE = "photos.safetensors"


def product_classes(
    classes: Mapping[str, Sequence[str]], items: pl.DataFrame
) -> tuple[str | None, Ints]:
    """Return the target that tells most products apart, and the item row of its classes (C,).

    A class is a product where it is the id or the category of one item alone; otherwise it is -1.
    The target is None, and C is 0, where no class is.

    Args:
        classes: Class names of every target of the vision tower.
        items: Table of ``ItemSchema``.
    """
    paths = items["category"].to_list()
    best, best_rows = None, np.empty(0, dtype=np.int64)
    for target, names in classes.items():
        if target == "item":
            of_items: list[str | None] = items["item_id"].to_list()
        elif target.startswith("category_"):
            of_items = category_names(paths, int(target.removeprefix("category_")) - 1)
        else:
            continue
        counts = Counter(of_items)
        row_of = {name: row for row, name in enumerate(of_items) if counts[name] == 1}
        rows = np.array([row_of.get(name, UNKNOWN) for name in names], dtype=np.int64)
        if (rows >= 0).sum() > (best_rows >= 0).sum():
            best, best_rows = target, rows
    return best, best_rows


def labelled_photos(dataset: Dataset) -> pl.DataFrame:
    """Return the photos of train and val that name their item; no split means train."""
    if dataset.photos is None:
        return PhotoSchema.create_empty()
    photos = dataset.photos.with_columns(pl.col("split").fill_null("train"))
    return photos.filter(pl.col("item_id").is_not_null(), pl.col("split") != "test")


def look_at_photos(
    paths: Sequence[Path],
    tower: VisionTower,
    folder: Path,
    *,
    head: str | None,
    views: Views,
    device: str,
    progress: bool,
) -> None:
    """Look at photos from several views; leave what the tower sees in ``folder``."""
    seen = look(tower, paths, head=head, views=views, device=device, progress=progress)
    save_file(seen._asdict(), folder / PHOTOS_FILE)


def load_photos(folder: Path) -> Photos:
    """Return what ``look_at_photos`` has left: embeddings (n, D_m) before any fusion."""
    return Photos(**load_file(folder / PHOTOS_FILE))


def build_gallery(
    items: pl.DataFrame,
    labels: pl.DataFrame,
    photos: Photos,
    modalities: Modalities,
    fusion: ItemFusion,
    item_embeddings: NDArray[np.float32],
    head_rows: Ints,
    config: IdentificationConfig,
) -> tuple[Gallery, Calibration]:
    """Return a gallery of pictures and train photos, and its calibration on the photos of val.

    Args:
        items: Table of ``ItemSchema`` (N rows).
        labels: From ``labelled_photos`` (n rows), of which some are of val.
        photos: What ``look_at_photos`` saw on them.
        modalities: Of the items, whose pictures are taken alone.
        fusion: Into the item space.
        item_embeddings: Of the items with their words (N, D).
        head_rows: Item row of each class of the head (C,); -1 for none.
        config: What is wanted.
    """
    rows = photo_rows(labels, items)
    train, val = (np.flatnonzero(labels["split"] == split) for split in ("train", "val"))
    fused = fuse_pictures(fusion, photos.embeddings)
    pictures, pictured = modalities.embeddings[IMAGE], modalities.present[IMAGE]
    gallery = Gallery(
        pictures=fuse_pictures(fusion, torch.from_numpy(pictures[pictured])),
        picture_rows=torch.from_numpy(np.flatnonzero(pictured)),
        photos=fused[train],
        photo_rows=torch.from_numpy(rows[train]),
        head_rows=torch.from_numpy(head_rows),
    )
    val = take_evenly(val, n_items=len(item_embeddings))
    calibration = fit_calibration(
        collect_evidence(
            Photos(fused[val], photos.logits[val]), torch.from_numpy(item_embeddings), gallery
        ),
        torch.from_numpy(rows[val]),
        torch.from_numpy(Catalogue(items, item_embeddings).categories),
        precision=config.precision,
        unknown_share=config.unknown_share,
    )
    return gallery, calibration
