"""Fine-tune on Grocery Store without outside weights, and record test accuracies of three seeds.

Run from the repository's root, after ``python -m benchmarks.myntra`` has trained the tower that the
recipe starts from: ``python -m benchmarks.grocery_scratch``. Towers of an earlier run are used
again. ``--seed N`` trains one seed and measures on val only.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import vision.checkpoint
from benchmarks.published import imported
from benchmarks.record import record
from recsys.config import load_config
from recsys.pipeline import load_tables
from recsys.training.samples import PictureSamples, label_pictures, picture_samples
from vision import Samples, VisionConfig, VisionTower
from vision.finetuning import finetune
from vision.hierarchy import choose_classes, find_category_paths, reconcile_levels
from vision.test_time import Views

COMMAND = "python -m benchmarks.grocery_scratch"
CONFIG = Path("configs/grocery_scratch.toml")
OUT = Path("out/grocery-scratch")
LEVELS = {"coarse": "category_2", "fine": "category_3"}


def main() -> None:
    """Measure the recipe that starts from Myntra's tower."""
    measure_recipe("scratch", CONFIG, OUT, COMMAND)


def measure_recipe(
    recipe: str, config_path: Path, out: Path, command: str, *, views: Views = "crops"
) -> None:
    """Train the missing towers, and measure them on val and, if all seeds are trained, on test.

    Args:
        recipe: Name of the recipe in the names of the figures.
        config_path: Configuration to train.
        out: Folder of the towers.
        command: Command that measures it again.
        views: Views of each photo to average.
    """
    parser = argparse.ArgumentParser(description=f"Measure {config_path}.")
    parser.add_argument("--seed", type=int, help="only seed to train, measured on val")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds to measure on test")
    options = parser.parse_args()
    only = options.seed
    if options.seeds != 3:
        command = f"{command} --seeds {options.seeds}"
    samples, config = load_grocery(config_path)
    assert samples.validation is not None
    assert samples.test is not None
    towers = []
    for seed in range(options.seeds) if only is None else (only,):
        tower = train(samples, config, out / f"seed-{seed}", seed)
        towers.append(tower)
        on_val = accuracies(tower, samples.validation, views=views)
        print(f"seed {seed}, val:", on_val, flush=True)
    if only is not None:
        return
    measured = [accuracies(tower, samples.test, views=views) for tower in towers]
    for name in LEVELS:
        values = np.array([one[name] for one in measured])
        print(f"test, {name}: {values.mean():.4f}", values.round(4), flush=True)
        named = f"grocery.{recipe}.{name}.accuracy"
        record("grocery", named, values.mean(), "accuracy", command)
        if len(values) > 1:
            record("grocery", f"{named}.std", values.std(ddof=1), "accuracy", command)


def load_grocery(config_path: Path) -> tuple[PictureSamples, VisionConfig]:
    """Return the pictures of Grocery Store and the [vision] part of a configuration."""
    imported("grocery-store", "grocery-store.tar")
    config = load_config(config_path)
    dataset = load_tables(config)
    return picture_samples(dataset, label_pictures(dataset)), config.vision


def train(samples: PictureSamples, config: VisionConfig, folder: Path, seed: int) -> VisionTower:
    """Return the tower of a seed, trained now or read from the folder."""
    if not (folder / "tower" / "config.json").exists():
        start = time.perf_counter()
        result = finetune(
            samples.train,
            config,
            validation=samples.validation,
            workdir=folder / "checkpoints",
            seed=seed,
        )
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s, {result.metrics}", flush=True)
        vision.checkpoint.save(result.tower, folder / "tower")
    return vision.checkpoint.load(folder / "tower")


def accuracies(tower: VisionTower, samples: Samples, *, views: Views = "crops") -> dict[str, float]:
    """Return the accuracy of each category level over all pictures."""
    predicted = predict_classes(tower, samples, views=views)
    right = {name: predicted[target] == samples.targets[target] for name, target in LEVELS.items()}
    return {name: float(values.mean()) for name, values in right.items()}


def predict_classes(
    tower: VisionTower, samples: Samples, *, views: Views = "crops"
) -> dict[str, NDArray[np.int64]]:
    """Return consistent classes (n,) of all levels, from several views of each picture."""
    root = samples.root or Path()
    pictures = [root / image for image in samples.images]
    paths = find_category_paths(tower.classes)
    probabilities = tower.predict_proba(pictures, views=views, precision="auto")
    return choose_classes(reconcile_levels(probabilities, paths), paths)


if __name__ == "__main__":
    main()
