"""Identify the products on Grocery Store's test photos, or that they are not in the catalogue.

Run from the repository's root, after ``python -m benchmarks.myntra`` has trained the tower that the
recipe starts from: ``python -m benchmarks.grocery_identify``. Three catalogues are trained:

- all 81 products;
- all 81 products from studio pictures and words, without customers' photos;
- 71 products, so that photos of the other ten show something that is not in the catalogue.

Everything is fitted on photos of train and val. Finished stages are not trained again.
"""

import argparse
import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.published import imported
from benchmarks.record import record
from recsys.bundle import Bundle
from recsys.config import TrainConfig, load_config
from recsys.identification.calibration import Calibrated, Calibration
from recsys.identification.evidence import HEAD, ITEM, PHOTOS, SOURCES, Evidence, collect_evidence
from recsys.identification.fitting import fit_calibration
from recsys.identifier import ProductIdentifier
from recsys.pipeline import train
from recsys.recommender import Recommender

COMMAND = "python -m benchmarks.grocery_identify"
CONFIG = Path("configs/grocery_scratch.toml")
OUT = Path("out/grocery-identify")
N_HELD_OUT = 10
N_BINS = 15
PRECISION = 0.95
UNKNOWN_SHARE = 0.1
# Sources of evidence that each smaller gallery lacks.
GALLERIES = {"studio": (ITEM, PHOTOS, HEAD), "described": (PHOTOS, HEAD)}


class Tables(NamedTuple):
    """Grocery Store's tables and the folder of its pictures."""

    items: pl.DataFrame
    photos: pl.DataFrame
    images: Path


class Asked(NamedTuple):
    """Photos whose product is known."""

    evidence: Evidence
    rows: Tensor  # int64 (B,)


class Measured(NamedTuple):
    """Figures over test photos, all of products in the catalogue."""

    top1: float
    top5: float
    error: float  # expected calibration error of the first candidate


class Rejection(NamedTuple):
    """Figures over test photos, some of products that are not in the catalogue."""

    auroc: float  # how well the probability separates photos of products in the catalogue
    coverage_at_p95: float  # largest share of photos answered with 95 % of the answers right
    said: float  # share of photos answered, with a product or a group, at the threshold of val
    precision: float  # share of those answers that contain the product; NaN without answers
    ece: float  # expected calibration error of the first candidate, with 10 % unknown products


def main() -> None:
    """Train the three catalogues, measure on test photos, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="recipe; figures of another are not recorded"
    )
    path = parser.parse_args().config
    folder = imported("grocery-store", "grocery-store.tar")
    items, photos = (
        pl.read_parquet(folder / f"{name}.parquet", glob=False) for name in ("items", "photos")
    )
    tables = Tables(items, photos, folder)
    config, out = load_config(path), OUT / path.stem
    recorded = path == CONFIG

    identifier = trained(tables, config, out / "all")
    ancestors = torch.from_numpy(identifier.recommender.catalogue.categories)
    val, test = (ask(identifier, tables, split) for split in ("val", "test"))
    for name, hidden in GALLERIES.items():
        found = measure(calibrate(val, ancestors, hidden), test, hidden)
        show(f"identify.{name}", found, recorded=recorded)
    labelled = measure(identifier.calibration, test, ())
    show("identify.labelled", labelled, recorded=recorded)

    unlabelled = tables._replace(photos=tables.photos.filter(pl.col("split") != "train"))
    identifier = trained(unlabelled, config, out / "unlabelled")
    val, test = (ask(identifier, tables, split) for split in ("val", "test"))
    hidden = (PHOTOS, HEAD)
    zero_label = measure(calibrate(val, ancestors, hidden), test, hidden)
    show("identify.zero_label", zero_label, recorded=recorded)

    known, unknown = hold_out(tables)
    identifier = trained(known, config, out / "known")
    show("unknown", reject(identifier, known, unknown), recorded=recorded)


def show(prefix: str, measured: Measured | Rejection, *, recorded: bool) -> None:
    """Print figures and, for the recipe of this benchmark, record them."""
    for name, value in measured._asdict().items():
        topic = "identify.ece" if name == "ece" else f"{prefix}.{name}"
        print(f"{topic:32} {value:.4f}", flush=True)
        if recorded and not np.isnan(value):
            record("grocery", f"grocery.{topic}", value, name, COMMAND)


def hold_out(tables: Tables) -> tuple[Tables, Tables]:
    """Return the tables without ten products that a hash chooses, and those of the ten alone."""
    by_hash = sorted(tables.items["item_id"], key=lambda one: hashlib.sha256(one.encode()).digest())
    chosen = pl.col("item_id").is_in(by_hash[:N_HELD_OUT])
    return (
        Tables(tables.items.filter(~chosen), tables.photos.filter(~chosen), tables.images),
        Tables(tables.items.filter(chosen), tables.photos.filter(chosen), tables.images),
    )


def trained(tables: Tables, config: TrainConfig, out: Path) -> ProductIdentifier:
    """Return an identifier over a catalogue, trained now or in an earlier run."""
    folder = out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    tables.items.write_parquet(folder / "items.parquet")
    tables.photos.write_parquet(folder / "photos.parquet")
    data = config.data.model_copy(
        update={
            "items": str(folder / "items.parquet"),
            "photos": str(folder / "photos.parquet"),
            "images_root": str(tables.images),
        }
    )
    evaluation = config.evaluation.model_copy(update={"ablations": False})
    config = config.model_copy(update={"data": data, "evaluation": evaluation})
    start = time.perf_counter()
    run = train(config, out, announce=lambda stage: print(f"{out.name}: {stage}", flush=True))
    print(f"{out.name}: {time.perf_counter() - start:.0f} s, bundle {run.bundle}", flush=True)
    return ProductIdentifier(Recommender(Bundle(run.bundle)))


def ask(identifier: ProductIdentifier, tables: Tables, split: str) -> Asked:
    """Return the evidence of every source on the photos of a split, and their products."""
    photos = tables.photos.filter(split=split)
    catalogue = identifier.recommender.catalogue
    seen = identifier.embed([tables.images / image for image in photos["image"]])
    evidence = collect_evidence(seen, catalogue.embeddings, identifier.gallery)
    return Asked(evidence, torch.from_numpy(catalogue.rows(photos["item_id"])))


def calibrate(val: Asked, ancestors: Tensor, hidden: tuple[int, ...]) -> Calibration:
    """Return the calibration of a gallery that lacks some sources.

    Its unknown products are hidden ones that the fusion was trained on, so it suits the order of
    products but not their rejection, which these galleries are not measured on.
    """
    return fit_calibration(
        without(val.evidence, hidden),
        val.rows,
        ancestors,
        precision=PRECISION,
        unknown_share=UNKNOWN_SHARE,
    )


def without(evidence: Evidence, hidden: tuple[int, ...]) -> Evidence:
    """Return the evidence of a gallery that lacks some sources."""
    sources = torch.isin(torch.arange(len(SOURCES)), torch.tensor(hidden, dtype=torch.long))
    return evidence.without(sources.expand_as(evidence.present))


def measure(calibration: Calibrated, test: Asked, hidden: tuple[int, ...]) -> Measured:
    """Return the figures of the test photos with a gallery that lacks some sources."""
    best = calibration.probabilities(without(test.evidence, hidden))[:, :-1].topk(5, dim=1)
    right = best.indices == test.rows[:, None]  # (B, 5)
    first = right[:, 0].double().numpy()
    return Measured(
        top1=float(first.mean()),
        top5=float(right.any(dim=1).double().mean()),
        error=calibration_error(
            best.values[:, 0].double().numpy(), first, np.full(len(first), 1 / len(first))
        ),
    )


def reject(identifier: ProductIdentifier, known: Tables, unknown: Tables) -> Rejection:
    """Return how well photos of unknown products are separated from those of the catalogue.

    Args:
        identifier: Identifier over the known products.
        known: Products of the catalogue and their photos.
        unknown: Products left out of the catalogue and their photos.
    """
    answers, first_right, said_right = [], [], []
    for tables in (known, unknown):
        photos = tables.photos.filter(split="test")
        found = identifier.identify_many([tables.images / image for image in photos["image"]])
        answers += found
        for one, item_id in zip(found, photos["item_id"], strict=True):
            first_right.append(one.candidates[0].item_id == item_id)
            if one.product_group is not None:
                said_right.append(item_id in one.product_group.item_ids)
    n_known = len(known.photos.filter(split="test"))
    n_unknown = len(answers) - n_known
    inside = np.array([one.probability for one in answers])
    first = np.array([one.candidates[0].score for one in answers])
    right = np.array(first_right, dtype=np.float64)
    shares = np.repeat(
        [(1 - UNKNOWN_SHARE) / n_known, UNKNOWN_SHARE / n_unknown], [n_known, n_unknown]
    )
    return Rejection(
        auroc=auroc(inside[:n_known], inside[n_known:]),
        coverage_at_p95=coverage_at(PRECISION, first, right),
        said=len(said_right) / len(answers),
        precision=float(np.mean(said_right)) if said_right else float("nan"),
        ece=calibration_error(first, right, shares),
    )


def auroc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Return the probability that a positive scores higher than a negative; ties count half."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    not_above = np.searchsorted(order, positive, side="right")
    return float((below + not_above).mean() / 2 / len(negative))


def coverage_at(precision: float, scores: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the largest share of answers, the most certain first, that reaches a precision."""
    order = np.argsort(-scores, kind="stable")
    said = np.arange(1, len(order) + 1)
    enough = right[order].cumsum() / said >= precision
    return float(said[enough].max(initial=0) / len(order))


def calibration_error(
    probabilities: NDArray[np.float64], right: NDArray[np.float64], shares: NDArray[np.float64]
) -> float:
    """Return the expected calibration error over bins of equal width.

    Args:
        probabilities: Probability of each answer.
        right: Whether each answer is right, 0 or 1.
        shares: Weight of each answer; the weights sum to 1.
    """
    bins = np.minimum((probabilities * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(bins, weights=shares * (right - probabilities), minlength=N_BINS)
    return float(np.abs(gaps).sum())


if __name__ == "__main__":
    main()
