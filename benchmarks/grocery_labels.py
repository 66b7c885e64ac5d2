"""Measure accuracy on Grocery Store with few labels, pretraining, and active learning.

Run from the repository's root: ``python -m benchmarks.grocery_labels``. Towers of an earlier run
are used again. Studio pictures always keep their labels, because a shop knows its own products;
of the photos in train, only a share has labels.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.grocery_scratch import accuracies, load_grocery, train
from benchmarks.record import record
from recsys.training.samples import PictureSamples
from vision import Samples, VisionConfig, VisionTower
from vision.labelling.selection import Pool, Strategy, select
from vision.pretrain import pretrain

COMMAND = "python -m benchmarks.grocery_labels"
CONFIG = Path("configs/grocery_labels.toml")
OUT = Path("out/grocery-labels")
SHARES = (0.05, 0.2, 1.0)
ASKED = 0.05  # share of the photos labelled at random, and the share that a strategy then chooses
STRATEGIES: tuple[Strategy, ...] = ("random", "margin", "core_set")


def main() -> None:
    """Train, and record accuracies by share of labels and by strategy of choosing more labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds to average over")
    seeds = range(parser.parse_args().seeds)
    samples, config = load_grocery(CONFIG)
    pretrained = pretrain(
        samples.train.images, config, workdir=OUT / "pretraining", seed=0, root=samples.train.root
    )
    print(f"pretrained: loss {pretrained.losses[-1]:.3f}, spread {pretrained.spread[-1]:.3f}")
    scratch = config.model_copy(update={"pretraining": None})
    recipes = {
        "scratch": scratch,
        "ssl": scratch.model_copy(update={"pretrained": str(pretrained.folder)}),
    }
    for share in SHARES:
        name = f"grocery.labels_{round(100 * share)}pct"
        means = {}
        for kind, recipe in recipes.items():
            values = [by_share(samples, recipe, share, kind, seed) for seed in seeds]
            means[kind] = float(np.mean(values))
            print(f"{name} {kind}: {means[kind]:.4f}", np.round(values, 4), flush=True)
            record("grocery", f"{name}.{kind}.accuracy", means[kind], "accuracy", COMMAND)
        record("grocery", f"{name}.ssl_gain", means["ssl"] - means["scratch"], "accuracy", COMMAND)
    for strategy in STRATEGIES:
        values = [by_strategy(samples, recipes["ssl"], strategy, seed) for seed in seeds]
        print(f"active {strategy}: {np.mean(values):.4f}", np.round(values, 4), flush=True)
        name = f"grocery.active.{strategy}.accuracy"
        record("grocery", name, float(np.mean(values)), "accuracy", COMMAND)


def by_share(
    samples: PictureSamples, config: VisionConfig, share: float, kind: str, seed: int
) -> float:
    """Return the test accuracy of the finest level, trained with a share of the photos labelled."""
    rows = labelled_rows(samples.train, share, seed)
    tower = train_on(samples, rows, config, OUT / f"{kind}-{round(100 * share)}-{seed}", seed)
    return fine_accuracy(tower, samples)


def by_strategy(
    samples: PictureSamples, config: VisionConfig, strategy: Strategy, seed: int
) -> float:
    """Return the test accuracy after a tower has chosen equally many photos again to label."""
    rows = labelled_rows(samples.train, ASKED, seed)
    first = train_on(samples, rows, config, OUT / f"ssl-{round(100 * ASKED)}-{seed}", seed)
    root = samples.train.root or Path()
    photos = np.flatnonzero(is_photo(samples.train))
    pool = np.setdiff1d(photos, rows)
    images = [root / samples.train.images[row] for row in pool]
    labelled = [root / samples.train.images[row] for row in rows]
    chosen = select(
        first, Pool(images, labelled), round(ASKED * len(photos)), strategy=strategy, seed=seed
    )
    asked = {str(image): row for image, row in zip(images, pool, strict=True)}
    added = [asked[image] for image in chosen.table["image"]]
    folder = OUT / f"active-{strategy}-{seed}"
    tower = train_on(samples, np.concatenate([rows, added]), config, folder, seed)
    return fine_accuracy(tower, samples)


def labelled_rows(train: Samples, share: float, seed: int) -> NDArray[np.int64]:
    """Return the rows of the studio pictures and of a random share of the photos."""
    photos = is_photo(train)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(photos))
    chosen = order[: round(share * len(order))]
    return np.sort(np.concatenate([np.flatnonzero(~photos), chosen]))


def is_photo(train: Samples) -> NDArray[np.bool_]:
    """Return which training images are customers' photos, not studio pictures, bool (n,)."""
    return np.array(["iconic" not in str(image) for image in train.images])


def train_on(
    samples: PictureSamples, rows: NDArray[np.int64], config: VisionConfig, folder: Path, seed: int
) -> VisionTower:
    """Return a tower trained on some of the pictures, for more epochs if they are fewer."""
    # Half of the epochs that would give as many steps as with all labels, because few pictures are
    # soon overfitted.
    passes = 0.5 * len(samples.train) / len(rows) + 0.5
    # Nothing is chosen on val, and measuring it every epoch would take as long as training.
    fewer = samples._replace(train=samples.train.take(rows), validation=None)
    longer = config.model_copy(update={"epochs": round(config.epochs * passes)})
    return train(fewer, longer, folder, seed)


def fine_accuracy(tower: VisionTower, samples: PictureSamples) -> float:
    """Return the accuracy of the finest level on the test photos."""
    assert samples.test is not None
    return accuracies(tower, samples.test, views="flip")["fine"]


if __name__ == "__main__":
    main()
