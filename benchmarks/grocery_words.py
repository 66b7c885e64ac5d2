"""What the words on packages add to Grocery Store's studio pictures and descriptions.

No tower sees a labelled photo, and the gallery has none. Photos of val weigh the evidence. Measured
on every third test photo of packages, as reading takes time, among all 81 products; then with ten
products left out.

Run from the repository's root: ``python -m benchmarks.grocery_words``. What was read stays in
``out/grocery-words``, so that a second run reads nothing again.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.grocery_identify import (
    PRECISION,
    UNKNOWN_SHARE,
    Asked,
    Tables,
    auroc,
    hold_out,
    trained,
)
from benchmarks.published import imported
from benchmarks.record import record
from recsys.config import load_config
from recsys.identification.evidence import (
    HEAD,
    ITEM,
    PHOTOS,
    PICTURE,
    SOURCES,
    WORDS,
    collect_evidence,
)
from recsys.identification.fitting import fit_calibration
from recsys.identification.words import WordIndex
from recsys.identifier import ProductIdentifier
from recsys.training.stages import STAGES
from recsys.training.words import CACHE, ReadingCache
from vision.batches import prepared_batches
from vision.words import WordReader

COMMAND = "python -m benchmarks.grocery_words"
CONFIG = Path("configs/grocery_words.toml")
OUT = Path("out/grocery-words")
EVERY = 3  # of the test photos of packages, one is asked
LABELLED = (PHOTOS, HEAD)
# Sources that each line of the table does without.
LINES = {
    "pictures": (*LABELLED, ITEM, WORDS),
    "described": (*LABELLED, WORDS),
    "read": LABELLED,
    "alone": (*LABELLED, PICTURE, ITEM),
}


class Scored(NamedTuple):
    """Probabilities of test photos."""

    products: Tensor  # (B, N)
    known: Tensor  # (B,): that the product is in the catalogue


def main() -> None:
    """Train on pictures and descriptions, read, measure on test photos, and record."""
    folder = imported("grocery-store", "grocery-store.tar")
    items, photos = (
        pl.read_parquet(folder / f"{name}.parquet", glob=False) for name in ("items", "photos")
    )
    tables = Tables(items, photos.filter(pl.col("split") != "train"), folder)
    reading = ReadingCache(OUT / STAGES / CACHE, WordReader())

    identifier = trained(tables, load_config(CONFIG), OUT)
    top1 = {"features": place("features", *nearest(identifier, tables))}
    val, test = ask(identifier, tables, "val", reading), ask(identifier, tables, "test", reading)
    for name, hidden in LINES.items():
        top1[name] = place(name, score(identifier, val, test, hidden).products, test.rows)
    without = max(top1[name] for name in ("features", "pictures", "described"))
    show("top1_gain", top1["read"] - without, "accuracy")
    read = reading.read(paths(tables, "test"))
    show("photos_with_words", float(np.mean([bool(lines) for lines in read])), "share")

    known, unknown = hold_out(tables)
    identifier = trained(known, load_config(CONFIG), OUT)
    val = ask(identifier, known, "val", reading)
    inside, outside = (ask(identifier, some, "test", reading) for some in (known, unknown))
    for name, hidden in LINES.items():
        scored = [score(identifier, val, some, hidden).known.numpy() for some in (inside, outside)]
        show(f"{name}.auroc", auroc(*scored), "auroc")


def paths(tables: Tables, split: str) -> list[Path]:
    """Return the files of a split's photos; of test, every third of packages."""
    return [tables.images / image for image in asked_photos(tables, split)["image"]]


def asked_photos(tables: Tables, split: str) -> pl.DataFrame:
    """Return the photos of a split; of test, every third of packages."""
    photos = tables.photos.filter(split=split)
    if split != "test":
        return photos
    return photos.filter(pl.col("category").list.first() == "Packages").gather_every(EVERY)


def ask(identifier: ProductIdentifier, tables: Tables, split: str, reading: ReadingCache) -> Asked:
    """Return the evidence of every source on photos, and their products; -1 for a stranger."""
    catalogue, images = identifier.recommender.catalogue, paths(tables, split)
    evidence = collect_evidence(identifier.embed(images), catalogue.embeddings, identifier.gallery)
    items = identifier.recommender.bundle.items.drop_nulls("image")
    pictures = reading.read([tables.images / image for image in items["image"]])
    index = WordIndex(catalogue, dict(zip(items["item_id"], pictures, strict=True)))
    found = [catalogue.find(item_id) for item_id in asked_photos(tables, split)["item_id"]]
    rows = torch.tensor([-1 if row is None else row for row in found])
    return Asked(evidence.with_words(index.scores(reading.read(images))), rows)


def score(
    identifier: ProductIdentifier, val: Asked, test: Asked, hidden: tuple[int, ...]
) -> Scored:
    """Return what a gallery that lacks some sources says of test photos, weighed on val."""
    val_evidence, test_evidence = (
        one.evidence.without(
            torch.isin(torch.arange(len(SOURCES)), torch.tensor(hidden)).expand_as(
                one.evidence.present
            )
        )
        for one in (val, test)
    )
    ancestors = torch.from_numpy(identifier.recommender.catalogue.categories)
    calibration = fit_calibration(
        val_evidence, val.rows, ancestors, precision=PRECISION, unknown_share=UNKNOWN_SHARE
    )
    found = calibration.probabilities(test_evidence)
    return Scored(found[:, :-1], 1 - found[:, -1])


@torch.inference_mode()
def nearest(identifier: ProductIdentifier, tables: Tables) -> tuple[Tensor, Tensor]:
    """Return cosines of test photos to all pictures (B, N), and the row of each photo (B,).

    They are of the backbone's features, as published and without anything learned here.
    """
    catalogue, tower = identifier.recommender.catalogue, identifier.recommender.bundle.vision
    pictures = [tables.images / image for image in catalogue.records(catalogue.item_ids)["image"]]
    features = [
        F.normalize(
            torch.cat(
                [tower.backbone(b) for b in prepared_batches(some, tower.preprocess, batch_size=32)]
            )
        )
        for some in (paths(tables, "test"), pictures)
    ]
    rows = catalogue.rows(asked_photos(tables, "test")["item_id"])
    return features[0] @ features[1].T, torch.from_numpy(rows)


def place(name: str, scores: Tensor, rows: Tensor) -> float:
    """Print and record how often the right product is first, and among five; return the first."""
    right = scores.topk(5, dim=1).indices == rows[:, None]  # (B, 5)
    top1 = float(right[:, 0].double().mean())
    show(f"{name}.top1", top1, "accuracy")
    show(f"{name}.top5", float(right.any(dim=1).double().mean()), "accuracy")
    return top1


def show(name: str, value: float, unit: str) -> None:
    """Print and record a figure."""
    print(f"grocery.words.{name:24} {value:.4f}", flush=True)
    record("grocery", f"grocery.words.{name}", value, unit, COMMAND)


if __name__ == "__main__":
    main()
