"""Compare methods for rare classes by macro-F1 over Myntra's article types.

Run from the repository's root, after ``python -m benchmarks.myntra``:
``python -m benchmarks.myntra_imbalance``. Each method trains new classifiers on the frozen backbone
of that benchmark, as Kang et al. (2020, https://arxiv.org/abs/1910.09217) recommend.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vision.checkpoint
from benchmarks.myntra import CONFIG, TARGET, TOWER, predict
from benchmarks.myntra_pictures import MyntraPictures, load_myntra
from benchmarks.record import record
from recsys.config import load_config
from vision import VisionConfig
from vision.finetuning import finetune
from vision.labelling.thresholds import apply_thresholds, tune_thresholds
from vision.report import evaluate_probabilities

COMMAND = "python -m benchmarks.myntra_imbalance"
OUT = Path("out/myntra-imbalance")
EPOCHS = 3
METHODS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "focal": {"objective": {"classifier": "focal"}},
    "class_weights": {"objective": {"class_weights": "balanced"}},
    "effective_weights": {"objective": {"class_weights": "effective_number"}},
    "logit_adjusted": {"objective": {"classifier": "logit_adjusted"}},
    "balanced_sampling": {"imbalance": {"sampling": "balanced", "target": TARGET}},
    "effective_sampling": {"imbalance": {"sampling": "effective_number", "target": TARGET}},
}


def main() -> None:
    """Train the classifiers of each method, and print and record their test figures."""
    pictures = load_myntra()
    for name, changes in METHODS.items():
        val, test = probabilities(pictures, name, changes)
        show(name, pictures, test)
        if name == "cross_entropy":
            # The same probabilities, with a threshold for each class, tuned on val.
            thresholds = tune_thresholds(val, pictures.val.targets[TARGET])
            chosen = apply_thresholds(test, thresholds)
            show("thresholds", pictures, np.eye(test.shape[1], dtype=np.float32)[chosen])


def probabilities(
    pictures: MyntraPictures, name: str, changes: dict[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a method's probabilities (n, C) on val and on test, training it if needed."""
    folder = OUT / name
    if not (folder / "tower" / "config.json").exists():
        values = {
            **load_config(CONFIG).vision.model_dump(),
            "pretrained": str(TOWER),
            "epochs": EPOCHS,
            "start_size": None,
            "ema": None,
            "warmup_epochs": 0.2,
            "embedding_weight": 0.0,
            "transfer": {"frozen_stages": "all"},
            **changes,
        }
        config = VisionConfig.model_validate(values)
        result = finetune(pictures.train, config, workdir=folder / "checkpoints", seed=0)
        vision.checkpoint.save(result.tower, folder / "tower")
    tower = vision.checkpoint.load(folder / "tower")
    return predict(tower, pictures.val), predict(tower, pictures.test)


def show(name: str, pictures: MyntraPictures, test: NDArray[np.float32]) -> None:
    """Print and record accuracy and macro-F1 of probabilities (n, C) on the test split."""
    labels, classes = pictures.test.targets[TARGET], pictures.test.classes[TARGET]
    measured = evaluate_probabilities(test, labels, classes)
    print(f"{name:20} accuracy {measured.accuracy}  macro-F1 {measured.macro_f1}", flush=True)
    topic = f"myntra.imbalance.{name}"
    record("myntra", f"{topic}.accuracy", measured.accuracy.mean, "accuracy", COMMAND)
    record("myntra", f"{topic}.macro_f1", measured.macro_f1.mean, "macro_f1", COMMAND)


if __name__ == "__main__":
    main()
