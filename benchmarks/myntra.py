"""Learn article types from Myntra's pictures, and record accuracy and macro-F1 on the test split.

Run from the repository's root: ``python -m benchmarks.myntra``. The tower is saved to the cache
folder, where other recipes start from it. A tower of an earlier run is used again.
"""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import vision.checkpoint
from benchmarks.myntra_pictures import load_myntra
from benchmarks.published import CACHE
from benchmarks.record import record
from recsys.config import load_config
from vision import Samples, VisionTower
from vision.finetuning import finetune
from vision.report import evaluate_probabilities

COMMAND = "python -m benchmarks.myntra"
CONFIG = Path("configs/myntra_pictures.toml")
TOWER = CACHE / "towers" / "myntra"
TARGET = "article_type"


def main() -> None:
    """Train unless there is a tower, and record its figures on the test pictures."""
    pictures = load_myntra()
    if not (TOWER / "config.json").exists():
        start = time.perf_counter()
        result = finetune(
            pictures.train,
            load_config(CONFIG).vision,
            validation=pictures.val,
            workdir=Path("out/myntra-pictures"),
            seed=0,
            progress=True,
        )
        print(f"{time.perf_counter() - start:.0f} s, val: {result.metrics}", flush=True)
        vision.checkpoint.save(result.tower, TOWER)
    probabilities = predict(vision.checkpoint.load(TOWER), pictures.test)
    labels, classes = pictures.test.targets[TARGET], pictures.test.classes[TARGET]
    measured = evaluate_probabilities(probabilities, labels, classes)
    print(f"{measured.n_pictures} test pictures, {len(classes)} types")
    for name in ("accuracy", "macro_f1"):
        estimate = getattr(measured, name)
        print(name, estimate)
        record("myntra", f"myntra.{TARGET}.image.{name}", estimate.mean, name, COMMAND)


def predict(tower: VisionTower, samples: Samples) -> NDArray[np.float32]:
    """Return probabilities of the article types (n, C), from a picture and its mirror image."""
    return tower.predict_proba([*samples.images], views="flip", precision="auto")[TARGET]


if __name__ == "__main__":
    main()
