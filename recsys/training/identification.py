"""Build what identifies the product on a photo: the gallery, and a calibration of its evidence."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.catalogue.embedder import Modalities
from recsys.config import IdentificationConfig
from recsys.data.arrays import Ints
from recsys.identification.calibration import Calibration
from recsys.identification.evidence import REGRESSION, Evidence, Gallery, collect_evidence
from recsys.identification.fitting import N_FOLDS, fit_calibration, take_evenly
from recsys.identification.photos import TowerPhotos, fuse_images, fuse_photos, run_tower
from recsys.identification.regression import fit_regression
from recsys.identification.words import WordScores
from recsys.models.fusion import ItemFusion
from recsys.training.items import IMAGE
from recsys.training.labels import UNKNOWN, category_names, photo_rows
from recsys.training.stack import FusedItems
from recsys.training.stages import Runtime
from vision.test_time import Views
from vision.tower import VisionTower

logger = logging.getLogger(__name__)

PHOTOS_FILE = "photos.safetensors"


def product_classes(
    classes: Mapping[str, Sequence[str]], items: pl.DataFrame
) -> tuple[str | None, Ints]:
    """Return the target that separates most products, and the item row of each class (C,).

    A class is a product if it is the id or the category of one item alone; otherwise its row is -1.
    The target is None, and C is 0, if no class of any target is a product.

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


def run_photos(
    paths: Sequence[Path],
    tower: VisionTower,
    folder: Path,
    *,
    head: str | None,
    views: Views,
    runtime: Runtime,
) -> None:
    """Write the tower's outputs for photos into ``folder``, where ``load_photos`` finds them."""
    seen = run_tower(
        tower,
        paths,
        head=head,
        views=views,
        device=runtime.device,
        progress=runtime.progress,
        read=runtime.read,
    )
    save_file(seen._asdict(), folder / PHOTOS_FILE)


def load_photos(folder: Path) -> TowerPhotos:
    """Return the tower's outputs that ``run_photos`` wrote."""
    return TowerPhotos(**load_file(folder / PHOTOS_FILE))


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos that name their item, as the vision tower sees them.

    Args:
        seen: Outputs of the tower for n photos.
        rows: Item row of the product on each photo, int64 (n,).
        in_val: Which photos the calibration is fitted on, bool (n,); the gallery keeps the others.
        head_rows: Item row of each class of the head, int64 (C,); -1 for a class that is not a
            single product.
    """

    seen: TowerPhotos
    rows: Ints
    in_val: NDArray[np.bool_]
    head_rows: Ints

    @classmethod
    def from_table(
        cls, labels: pl.DataFrame, items: pl.DataFrame, seen: TowerPhotos, head_rows: Ints
    ) -> "LabelledPhotos":
        """Return the photos of a table.

        Args:
            labels: Table from ``labelled_photos``.
            items: Table of ``ItemSchema``.
            seen: Outputs of the tower for each row of ``labels``.
            head_rows: Item row of each class of the head, from ``product_classes``.
        """
        in_val = (labels["split"] == "val").to_numpy()
        return cls(seen, photo_rows(labels, items), in_val, head_rows)

    def take(self, photos: Ints | NDArray[np.bool_]) -> "LabelledPhotos":
        """Return some of the photos, chosen by index or mask."""
        chosen = torch.from_numpy(photos)
        seen = TowerPhotos(*(part[chosen] for part in self.seen))
        return LabelledPhotos(seen, self.rows[photos], self.in_val[photos], self.head_rows)


class HeldOut(NamedTuple):
    """Products, and the items and the gallery as seen by a fusion that was not trained on them."""

    products: Ints  # item rows
    fused: FusedItems
    gallery: Gallery


def fuse_without_halves(
    photos: LabelledPhotos, modalities: Modalities, fuse: Callable[[str, Sequence[int]], FusedItems]
) -> list[HeldOut]:
    """Return the two halves of the products on photos of val, each with a fusion trained without.

    Args:
        photos: Photos of train and val.
        modalities: Tower outputs of the items.
        fuse: Trains a fusion, given a suffix for its stage and the item rows to leave out.
    """
    held_out = []
    for number, products in enumerate(held_out_products(photos, modalities), start=1):
        fused = fuse(f"-held-out-{number}", products.tolist())
        held_out.append(HeldOut(products, fused, gallery_of(photos, modalities, fused.fusion)))
    return held_out


def held_out_products(photos: LabelledPhotos, modalities: Modalities) -> list[Ints]:
    """Return the rows of the products on photos of val, in two halves; an empty list if too few.

    A half is every second product in the order of the catalogue, where siblings often follow each
    other. A product that is left out then has siblings that are not, as a product from elsewhere
    does. Each half leaves at least two products to train a fusion on.

    Args:
        photos: Photos of train and val.
        modalities: Tower outputs of the items.
    """
    rows = np.unique(photos.rows[photos.in_val])
    usable = np.any(list(modalities.present.values()), axis=0).sum()
    halves = [rows[0::2], rows[1::2]]
    return halves if len(halves[1]) and usable - len(halves[0]) >= 2 else []


def gallery_of(photos: LabelledPhotos, modalities: Modalities, fusion: ItemFusion) -> Gallery:
    """Return the gallery of all pictures and of the photos of train, as the fusion sees them."""
    train = photos.take(~photos.in_val)
    pictured = np.flatnonzero(modalities.present[IMAGE])
    pictures = torch.from_numpy(modalities.embeddings[IMAGE][pictured])
    return Gallery(
        pictures=fuse_images(fusion, pictures),
        picture_rows=torch.from_numpy(pictured),
        photos=fuse_photos(fusion, train.seen).embeddings,
        photo_rows=torch.from_numpy(train.rows),
        head_rows=torch.from_numpy(photos.head_rows),
    ).with_regression(fit_regression(train.seen.features, torch.from_numpy(train.rows)))


def evidence_of(photos: LabelledPhotos, fused: FusedItems, gallery: Gallery) -> Evidence:
    """Return what each source says about each product for these photos, as the fusion sees them."""
    items = torch.from_numpy(fused.embeddings)
    return collect_evidence(fuse_photos(fused.fusion, photos.seen), items, gallery)


class Observed(NamedTuple):
    """What the sources say about photos of val.

    Args:
        positions: Positions of the photos among the labelled ones, int64 (B,).
        rows: Item row of the product on each photo, int64 (B,).
        evidence: Evidence from networks that have met every product.
        unmet: Evidence for each photo from a fusion that was not trained on its product.
    """

    positions: Ints
    rows: Tensor
    evidence: Evidence
    unmet: Evidence

    def take(self, photos: Ints) -> "Observed":
        """Return some of the photos, chosen by index."""
        chosen = torch.from_numpy(photos)
        taken = (self.evidence.take(chosen), self.unmet.take(chosen))
        return Observed(self.positions[photos], self.rows[chosen], *taken)

    def with_words(self, scores: WordScores) -> "Observed":
        """Return the photos with what the words on them say."""
        evidence, unmet = self.evidence.with_words(scores), self.unmet.with_words(scores)
        return self._replace(evidence=evidence, unmet=unmet)


def observe(
    photos: LabelledPhotos, fused: FusedItems, gallery: Gallery, held_out: Sequence[HeldOut]
) -> Observed:
    """Return what the sources say about photos of val, or about a sample of many.

    Args:
        photos: Photos of train and val; at least one is of val.
        fused: Fusion and the items as it sees them.
        gallery: Gallery as the same fusion sees it.
        held_out: Products of val, with fusions that were not trained on them.
    """
    positions = take_evenly(np.flatnonzero(photos.in_val), n_items=len(fused.embeddings))
    val = photos.take(positions)
    evidence = evidence_of(val, fused, gallery)
    unmet = Evidence(evidence.values.clone(), evidence.present.clone())
    for products, other, other_gallery in held_out:
        shown = np.isin(val.rows, products)
        replaced = evidence_of(val.take(shown), other, other_gallery)
        unmet.values[shown] = replaced.values
    regress_without(photos.take(~photos.in_val), val, unmet)
    return Observed(positions, torch.from_numpy(val.rows), evidence, unmet)


def regress_without(train: LabelledPhotos, val: LabelledPhotos, unmet: Evidence) -> None:
    """Replace what the regression says in ``unmet`` by regressions without each photo's product.

    A few products at a time are left out, so that nearly all others can be mistaken for them.
    """
    products = np.unique(val.rows)
    for fold in range(min(N_FOLDS, len(products))):
        without = products[fold::N_FOLDS]
        kept = train.take(~np.isin(train.rows, without))
        regression = fit_regression(kept.seen.features, torch.from_numpy(kept.rows))
        shown = torch.from_numpy(np.isin(val.rows, without))
        said = torch.zeros(int(shown.sum()), unmet.values.shape[1])
        said[:, regression.rows] = regression.scores(val.seen.features[shown])
        there = torch.isin(torch.arange(said.shape[1]), regression.rows)
        unmet.values[shown, :, REGRESSION] = said.to(unmet.values)
        unmet.present[shown, :, REGRESSION] = there


def calibrate(observed: Observed, categories: Ints, config: IdentificationConfig) -> Calibration:
    """Return a calibration of the gallery, fitted on photos of val.

    Args:
        observed: What the sources say about the photos.
        categories: Category of each product by level, int64 (N, L); -1 where the path has ended.
        config: Wanted precision, and the expected share of photos of unknown products.
    """
    calibration = fit_calibration(
        observed.evidence,
        observed.rows,
        torch.from_numpy(categories),
        precision=config.precision,
        unknown_share=config.unknown_share,
        unmet=observed.unmet,
    )
    if calibration.named.threshold is None:
        logger.warning("identification: %s", calibration.sentence())
    return calibration
