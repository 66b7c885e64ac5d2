"""Train the default vision tower on sets that its rule was not tuned on, beside a linear probe.

Run from the repository's root: ``python -m benchmarks.vision_defaults``, or with names of sets to
measure those alone. It needs the extra ``weights``. Nothing is set: docs/vision.md has the rule
that sets the rest. The probe is a logistic regression on the features of the same weights before
training, at the same size of pictures, with its strength chosen on val. All sets are small cuts,
since there a default is most in danger of being worse than the probe.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.grocery_labels import is_photo, labelled_rows
from benchmarks.grocery_scratch import load_grocery
from benchmarks.myntra_pictures import load_myntra
from benchmarks.record import record
from recsys.config import DataConfig, TrainConfig
from recsys.data.arrays import Floats, Ints
from recsys.data.synthetic import generate_shop
from recsys.pipeline import load_tables
from recsys.training.samples import label_pictures, picture_samples
from vision import Samples, VisionConfig, VisionTower
from vision.dataset import UNKNOWN
from vision.finetuning import build_tower, finetune
from vision.labelling.imprinting import compute_features
from vision.networks.start import decide_start
from vision.training.recipe import decide_recipe

COMMAND = "python -m benchmarks.vision_defaults"
OUT = Path("out/vision-defaults").resolve()
SEED = 0
MOST_VAL, MOST_TEST = 150, 600  # pictures
STRENGTHS = (0.1, 1.0, 10.0, 100.0)


class Cut(NamedTuple):
    """A small labelled set, and the target whose accuracy counts."""

    train: Samples
    val: Samples
    test: Samples
    target: str


def grocery(choose: Callable[[Samples], Ints]) -> Cut:
    """Return Grocery Store with some of its train pictures."""
    samples, _ = load_grocery(Path("configs/grocery_store.toml"))
    assert samples.validation is not None
    assert samples.test is not None
    train = samples.train.take(choose(samples.train))
    return Cut(train, samples.validation, samples.test, "category_3")


def imbalanced_rows(train: Samples) -> Ints:
    """Return the studio pictures, and from 20 photos of one product down to none of another."""
    generator = np.random.default_rng(SEED)
    photos, labels = is_photo(train), train.targets["category_3"]
    products = generator.permutation(np.unique(labels))
    kept = [np.flatnonzero(~photos)]
    for place, product in enumerate(products):
        rows = generator.permutation(np.flatnonzero(photos & (labels == product)))
        kept.append(rows[: round(20 * (1 - place / len(products)) ** 3)])
    return np.sort(np.concatenate(kept))


def myntra() -> Cut:
    """Return 400 pictures of Myntra's article types, which are of 60 x 80 pixels."""
    pictures = load_myntra()
    train = _drawn(_labelled(pictures.train, "article_type"), 400)
    return Cut(train, pictures.val, pictures.test, "article_type")


def generated() -> Cut:
    """Return the item pictures and customers' photos of a generated shop of 120 items."""
    end = datetime(2026, 1, 1, tzinfo=UTC)
    if OUT.exists():
        shutil.rmtree(OUT)
    shop = generate_shop(OUT / "shop", end=end, n_items=120, n_users=50, months=3)
    data = DataConfig(items=str(shop.items), photos=str(shop.photos), images_root=str(shop.images))
    dataset = load_tables(TrainConfig(name="generated", data=data))
    samples = picture_samples(dataset, label_pictures(dataset))
    assert samples.validation is not None
    assert samples.test is not None
    finest = max(name for name in samples.train.classes if name.startswith("category_"))
    return Cut(samples.train, samples.validation, samples.test, finest)


SETS: dict[str, Callable[[], Cut]] = {
    "grocery_5pct": lambda: grocery(lambda train: labelled_rows(train, 0.05, SEED)),
    "grocery_20pct": lambda: grocery(lambda train: labelled_rows(train, 0.2, SEED)),
    "grocery_imbalanced": lambda: grocery(imbalanced_rows),
    "myntra": myntra,
    "generated": generated,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sets, and print and record accuracies on test pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="sets to measure")
    for name in parser.parse_args(arguments).sets or SETS:
        whole = SETS[name]()
        cut = whole._replace(
            val=_drawn(_labelled(whole.val, whole.target), MOST_VAL),
            test=_drawn(_labelled(whole.test, whole.target), MOST_TEST),
        )
        start = time.process_time()
        figures = {"probe": probe_accuracy(cut), "default": default_accuracy(cut)}
        print(name, len(cut.train), len(cut.test), figures, round(time.process_time() - start), "s")
        for system, value in figures.items():
            again = f"{COMMAND} {name}"
            record("vision_defaults", f"vision_defaults.{name}.{system}", value, "accuracy", again)


def default_accuracy(cut: Cut) -> float:
    """Return the test accuracy of the tower that the default configuration trains."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        result = finetune(cut.train, VisionConfig(), validation=cut.val, workdir=workdir, seed=SEED)
    print(result.metrics, result.epochs, "epochs", flush=True)
    images = [(cut.test.root or Path()) / image for image in cut.test.images]
    predicted = result.tower.predict_proba(images)[cut.target].argmax(axis=1)
    return float((predicted == cut.test.targets[cut.target]).mean())


def probe_accuracy(cut: Cut) -> float:
    """Return the test accuracy of a logistic regression on the features of the weights."""
    config = decide_recipe(decide_start(VisionConfig()), cut.train)
    tower = build_tower(cut.train.classes, config).eval()
    parts = [_labelled(part, cut.target) for part in (cut.train, cut.val, cut.test)]
    (train, train_labels), (val, val_labels), (test, test_labels) = (
        (_features(tower, part), part.targets[cut.target]) for part in parts
    )
    probes = [
        LogisticRegression(C=strength, max_iter=500).fit(train, train_labels)
        for strength in STRENGTHS
    ]
    best = max(probes, key=lambda probe: probe.score(val, val_labels))
    return float(best.score(test, test_labels))


def _features(tower: VisionTower, samples: Samples) -> Floats:
    """Return the features of the backbone, float32 (n, F)."""
    images = [(samples.root or Path()) / image for image in samples.images]
    return compute_features(tower, images)


def _labelled(samples: Samples, target: str) -> Samples:
    return samples.take(np.flatnonzero(samples.targets[target] != UNKNOWN))


def _drawn(samples: Samples, most: int) -> Samples:
    rows = np.random.default_rng(SEED).permutation(len(samples))[:most]
    return samples.take(np.sort(rows))


if __name__ == "__main__":
    main()
