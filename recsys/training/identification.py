"""Build what tells the product on a photo: gallery and calibration, from labelled photos."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file

from recsys.catalogue.embedder import Modalities
from recsys.catalogue.store import Catalogue
from recsys.config import IdentificationConfig, TrainConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import Ints
from recsys.identification.calibration import Calibration, fit_calibration, take_evenly
from recsys.identification.evidence import Evidence, Gallery, Photos, collect_evidence
from recsys.identification.photos import fuse_pictures, look
from recsys.models.fusion import ItemFusion
from recsys.schema import PhotoSchema
from recsys.training.items import IMAGE
from recsys.training.labels import UNKNOWN, category_names, photo_rows
from recsys.training.stack import FusedItems, Material, fuse_items
from recsys.training.stages import Workspace
from vision.test_time import Views
from vision.tower import VisionTower

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


def fuse_without_halves(
    material: Material,
    labels: pl.DataFrame,
    config: TrainConfig,
    workspace: Workspace,
    *,
    device: str,
    progress: bool,
) -> list[tuple[Ints, FusedItems]]:
    """Return the halves of the products on photos of val, each with a fusion that never met it.

    Args:
        material: What the fusions are trained on.
        labels: From ``labelled_photos``.
        config: Of the fusion.
        workspace: Keeps the stages.
        device: Where to train.
        progress: Show bars.
    """
    found = []
    halves = held_out_products(labels, material.dataset.items, material.modalities)
    for number, rows in enumerate(halves, start=1):
        fused = fuse_items(
            material,
            config,
            workspace,
            device=device,
            progress=progress,
            suffix=f"-held-out-{number}",
            without=rows.tolist(),
        )
        found.append((rows, fused))
    return found


def held_out_products(
    labels: pl.DataFrame, items: pl.DataFrame, modalities: Modalities
) -> list[Ints]:
    """Return the rows of the products on photos of val, in two halves; an empty list if too few.

    Every second of them in the order of the catalogue, where siblings often follow each other: a
    product that is left out then has siblings that are not, as strangers do. Either half leaves
    enough products to train a fusion on.

    Args:
        labels: From ``labelled_photos``.
        items: Table of ``ItemSchema``.
        modalities: Of the items.
    """
    rows = np.unique(photo_rows(labels.filter(split="val"), items))
    usable = np.any(list(modalities.present.values()), axis=0).sum()
    halves = [rows[0::2], rows[1::2]]
    return halves if len(halves[1]) and usable - len(halves[0]) >= 2 else []


def build_gallery(
    items: pl.DataFrame,
    labels: pl.DataFrame,
    photos: Photos,
    modalities: Modalities,
    fused: FusedItems,
    held_out: Sequence[tuple[Ints, FusedItems]],
    head_rows: Ints,
    config: IdentificationConfig,
) -> tuple[Gallery, Calibration]:
    """Return a gallery of pictures and train photos, and its calibration on the photos of val.

    Args:
        items: Table of ``ItemSchema`` (N rows).
        labels: From ``labelled_photos`` (n rows), of which some are of val.
        photos: What ``look_at_photos`` saw on them.
        modalities: Of the items, whose pictures are taken alone.
        fused: The items in their space.
        held_out: Rows of some products, and the items as a fusion that has not met them sees them.
        head_rows: Item row of each class of the head (C,); -1 for none.
        config: What is wanted.
    """
    rows = photo_rows(labels, items)
    train = np.flatnonzero(labels["split"] == "train")
    val = take_evenly(np.flatnonzero(labels["split"] == "val"), n_items=len(items))
    pictured = np.flatnonzero(modalities.present[IMAGE])
    pictures = torch.from_numpy(modalities.embeddings[IMAGE][pictured])

    def known_by(fusion: ItemFusion) -> Gallery:
        return Gallery(
            pictures=fuse_pictures(fusion, pictures),
            picture_rows=torch.from_numpy(pictured),
            photos=fuse_pictures(fusion, photos.embeddings[train]),
            photo_rows=torch.from_numpy(rows[train]),
            head_rows=torch.from_numpy(head_rows),
        )

    def evidence(seen_by: FusedItems, gallery: Gallery, asked: Ints) -> Evidence:
        embeddings = fuse_pictures(seen_by.fusion, photos.embeddings[asked])
        return collect_evidence(
            Photos(embeddings, photos.logits[asked]),
            torch.from_numpy(seen_by.embeddings),
            gallery,
        )

    gallery = known_by(fused.fusion)
    met = evidence(fused, gallery, val)
    unmet = Evidence(met.values.clone(), met.present)
    for products, without in held_out:
        theirs = np.isin(rows[val], products)
        unmet.values[theirs] = evidence(without, known_by(without.fusion), val[theirs]).values
    calibration = fit_calibration(
        met,
        torch.from_numpy(rows[val]),
        torch.from_numpy(Catalogue(items, fused.embeddings).categories),
        precision=config.precision,
        unknown_share=config.unknown_share,
        unmet=unmet,
    )
    return gallery, calibration
