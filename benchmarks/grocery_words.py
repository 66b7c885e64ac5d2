"""What the words on packages add to Grocery Store's studio pictures and descriptions.

No tower sees a labelled photo, and the gallery has none. Photos of val weigh the evidence. Measured
on the test photos of packages, among all 81 products; then with ten products left out.

Run from the repository's root: ``python -m benchmarks.grocery_words``. What was read stays in
``out/grocery-words``, so that a second run reads nothing again.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
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
from vision.words import WordReader

COMMAND = "python -m benchmarks.grocery_words"
CONFIG = Path("configs/grocery_words.toml")
OUT = Path("out/grocery-words")
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
    """Train on pictures and descriptions, read, measure on test photos of packages, and record."""
    folder = imported("grocery-store", "grocery-store.tar")
    items, photos = (
        pl.read_parquet(folder / f"{name}.parquet", glob=False) for name in ("items", "photos")
    )
    tables = Tables(items, photos.filter(pl.col("split") != "train"), folder)
    reading = ReadingCache(OUT / STAGES / CACHE, WordReader())

    top1 = {}
    identifier = trained(tables, load_config(CONFIG), OUT)
    val, test = ask(identifier, tables, "val", reading), ask(identifier, tables, "test", reading)
    for name, hidden in LINES.items():
        first = score(identifier, val, test, hidden).products.topk(5, dim=1).indices
        right = first == test.rows[:, None]
        top1[name] = float(right[:, 0].double().mean())
        show(f"{name}.top1", top1[name], "accuracy")
        show(f"{name}.top5", float(right.any(dim=1).double().mean()), "accuracy")
    show("top1_gain", top1["read"] - top1["described"], "accuracy")
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
    """Return the files of a split's photos; of test, those of packages alone."""
    return [tables.images / image for image in asked_photos(tables, split)["image"]]


def asked_photos(tables: Tables, split: str) -> pl.DataFrame:
    """Return the photos of a split; of test, those of packages alone."""
    packages = pl.col("category").list.first() == "Packages"
    return tables.photos.filter(pl.col("split") == split, packages | (pl.lit(split) == "val"))


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


def show(name: str, value: float, unit: str) -> None:
    """Print and record a figure."""
    print(f"grocery.words.{name:24} {value:.4f}", flush=True)
    record("grocery", f"grocery.words.{name}", value, unit, COMMAND)


if __name__ == "__main__":
    main()
