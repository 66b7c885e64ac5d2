"""Add ten products of Grocery Store to a classifier of the others from 1, 5 and 10 photos each.

Run from the repository's root: ``python -m benchmarks.grocery_few_shot``. It needs the extra
``weights``. The classifier is a linear head on frozen EfficientNet-Lite0 at 128 px. Features are
kept in ``out/grocery-few-shot``. Results are means over three draws of the ten products.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from scipy.special import softmax
from torch import nn

from benchmarks.published import imported
from benchmarks.record import record
from recsys.data.arrays import Bools, Doubles, Floats, Ints
from vision.labelling.imprinting import (
    SHOTS,
    LabelledFeatures,
    Reference,
    compute_features,
    fit_scale,
    make_row,
)
from vision.networks.backbones import build_backbone
from vision.report.calibration import fit_temperature, reliability
from vision.tower import VisionTower

COMMAND = "python -m benchmarks.grocery_few_shot"
OUT = Path("out/grocery-few-shot")
BACKBONE, SIZE = "tf_efficientnet_lite0", 128
N_NEW, DRAWS, SHOT_COUNTS = 10, (0, 1, 2), (1, 5, 10)
EPOCHS = 15


class Photos(NamedTuple):
    """Photos with the features of the frozen backbone."""

    features: Floats  # (n, F)
    products: Ints  # (n,)
    split: pl.Series  # train, val or test (n,)

    def of(self, split: str, products: Ints) -> LabelledFeatures:
        """Return the photos of some products, labelled by their place in ``products``."""
        rows = (self.split == split).to_numpy() & np.isin(self.products, products)
        place = np.full(int(self.products.max()) + 1, -1)
        place[products] = np.arange(len(products))
        return LabelledFeatures(self.features[rows], place[self.products[rows]])


def main() -> None:
    """Measure accuracy on test photos of old and new products, and record the means."""
    photos = load_photos()
    measured: dict[str, list[float]] = {}
    for draw in DRAWS:
        for name, value in measure(photos, draw).items():
            measured.setdefault(name, []).append(value)
            print(f"draw {draw}, {name}: {value:.3f}", flush=True)
    for name, values in measured.items():
        print(f"{name}: {np.mean(values):.4f}", np.round(values, 4))
        unit = "probability" if name.endswith(".ece") else "accuracy"
        record("grocery", name, float(np.mean(values)), unit, COMMAND)


def load_photos() -> Photos:
    """Return all photos; their features are computed by the first run."""
    root = imported("grocery-store", "grocery-store.tar")
    table = pl.read_parquet(root / "photos.parquet")
    file = OUT / f"{BACKBONE}-{SIZE}.npy"
    if not file.exists():
        backbone = build_backbone(BACKBONE, pretrained=True, size=SIZE)
        tower = VisionTower(backbone, dim=8, classes={}).eval()
        images = [root / image for image in table["image"]]
        OUT.mkdir(parents=True, exist_ok=True)
        np.save(file, compute_features(tower, images, progress=True))
    names = table["item_id"].unique().sort().to_list()
    products = np.array([names.index(one) for one in table["item_id"]])
    return Photos(np.load(file), products, table["split"])


def measure(photos: Photos, draw: int) -> dict[str, float]:
    """Return the results of one draw of new products, by name."""
    rng = np.random.default_rng(draw)
    shuffled = rng.permutation(int(photos.products.max()) + 1)
    new, old = shuffled[:N_NEW], shuffled[N_NEW:]
    train, held_out = photos.of("train", old), photos.of("val", old)
    test = photos.of("test", np.concatenate([old, new]))
    weights, biases = _calibrated(*fit_head(train, held_out, len(old)), held_out)
    sample = np.concatenate([_some(train.labels, n, SHOTS, rng) for n in range(len(old))])
    kept = LabelledFeatures(train.features[sample], train.labels[sample])
    results = _accuracies(
        "none", softmax(test.features @ weights.T + biases, axis=1), test, len(old)
    )
    for count in SHOT_COUNTS:
        scale = fit_scale(weights, biases, Reference(kept, held_out), n_shots=count)
        rows = []
        for product in new:
            shown = photos.of("train", np.array([product])).features
            shots = shown[rng.permutation(len(shown))[:count]]
            rows.append(make_row(shots, scale))
        logits = np.column_stack(
            [test.features @ weights.T + biases]
            + [test.features @ row.weight + row.bias for row in rows]
        )
        results |= _accuracies(str(count), softmax(logits, axis=1), test, len(old))
    everything = photos.of("train", np.concatenate([old, new]))
    seen = photos.of("val", np.concatenate([old, new]))
    weights, biases = _calibrated(*fit_head(everything, seen, len(shuffled)), seen)
    probabilities = softmax(test.features @ weights.T + biases, axis=1)
    return results | _accuracies("trained", probabilities, test, len(old))


def fit_head(train: LabelledFeatures, val: LabelledFeatures, n: int) -> tuple[Doubles, Doubles]:
    """Return weights (n, F) and biases (n,) of a linear head, of the epoch that is best on val."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.from_numpy(train.features), torch.from_numpy(train.labels)
    head = nn.Linear(features.shape[1], n)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=1e-2)
    best, kept = float("inf"), head.state_dict()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(64):
            loss = nn.functional.cross_entropy(head(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            scores = head(torch.from_numpy(val.features))
            cost = nn.functional.cross_entropy(scores, torch.from_numpy(val.labels)).item()
        if cost < best:
            best, kept = cost, {name: value.clone() for name, value in head.state_dict().items()}
    return kept["weight"].double().numpy(), kept["bias"].double().numpy()


def _calibrated(
    weights: Doubles, biases: Doubles, val: LabelledFeatures
) -> tuple[Doubles, Doubles]:
    """Return weights and biases whose softmax is calibrated on photos of val."""
    probabilities = softmax(val.features @ weights.T + biases, axis=1)
    temperature = fit_temperature(probabilities, val.labels)
    return weights / temperature, biases / temperature


def _accuracies(
    name: str, probabilities: Doubles, test: LabelledFeatures, n_old: int
) -> dict[str, float]:
    """Return accuracy on old and new products, and the calibration error over all photos."""
    right = probabilities.argmax(axis=1) == test.labels
    is_old: Bools = test.labels < n_old
    prefix = f"grocery.few_shot.{name}"
    results = {f"{prefix}.old": float(right[is_old].mean())}
    if name == "none":
        return results
    error = reliability(probabilities, test.labels).ece
    return results | {f"{prefix}.new": float(right[~is_old].mean()), f"{prefix}.ece": error}


def _some(labels: Ints, label: int, count: int, rng: np.random.Generator) -> Ints:
    """Return up to ``count`` rows of a label, in random order."""
    rows: Ints = rng.permutation(np.flatnonzero(labels == label))[:count]
    return rows


if __name__ == "__main__":
    main()
