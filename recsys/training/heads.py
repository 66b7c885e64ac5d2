"""What is kept of the pictures behind the vision tower's heads: the stage "heads"."""

import json
from pathlib import Path

import numpy as np
from scipy.special import softmax

from recsys.config import AnnotationConfig
from recsys.data.arrays import Ints
from recsys.data.files import whole_file
from recsys.identification.annotation import ATTRIBUTE, CATEGORY
from recsys.identification.heads import HeadPictures, HeadsPart, Reading, load_heads, save_heads
from recsys.training.inputs import ShopData
from recsys.training.labels import UNKNOWN
from recsys.training.stages import Runtime
from recsys.training.towers import TrainedTowers
from vision.dataset import Samples
from vision.labelling.imprinting import SHOTS, compute_features
from vision.labelling.thresholds import tune_thresholds
from vision.report.calibration import at_temperature, fit_temperature
from vision.tower import VisionTower

PICTURES, READING = "heads.safetensors", "reading.json"
MAX_PICTURES = 1_024  # of each kind, to bound the size of the bundle


def keep_heads(
    shop: ShopData, towers: TrainedTowers, config: AnnotationConfig, runtime: Runtime
) -> HeadsPart | None:
    """Return what the stage "heads" keeps of the pictures; None without photos of val."""
    tower, held_out = towers.vision, shop.pictures.validation
    if tower is None or held_out is None or not any(map(_is_named, tower.classes)):
        return None
    stage = runtime.workspace.run(
        "heads",
        {"tables": shop.vision_key, "towers": towers.keys, "config": config.model_dump()},
        lambda folder: _write(
            see_heads(tower, shop.pictures.train, held_out, config, runtime), folder
        ),
    )
    reading = Reading(**json.loads((stage.folder / READING).read_text("utf-8")))
    return load_heads(stage.folder / PICTURES, reading)


def see_heads(
    tower: VisionTower,
    train: Samples,
    held_out: Samples,
    config: AnnotationConfig,
    runtime: Runtime,
) -> HeadsPart:
    """Return what a bundle keeps of the pictures behind the heads.

    Args:
        tower: Trained tower.
        train: Pictures that it was trained on, with its classes.
        held_out: Pictures that it was not trained on, with its classes.
        config: Whether there are thresholds.
        runtime: How to run the tower.
    """
    learned = train.take(sample_classes(train))
    rng = np.random.default_rng(0)
    held_out = held_out.take(np.sort(rng.permutation(len(held_out))[:MAX_PICTURES]))
    seen = [_see(tower, samples, runtime) for samples in (learned, held_out)]
    return HeadsPart(seen[0], seen[1], fit_reading(tower, seen[1], config))


def sample_classes(samples: Samples) -> Ints:
    """Return rows of up to ten pictures of each class of the finest category level, in order."""
    levels = [name for name in samples.classes if name.startswith(CATEGORY)]
    order = np.random.default_rng(0).permutation(len(samples))
    if not levels:
        return np.sort(order[:MAX_PICTURES])
    # A path may end early, so the class of a picture is that of its finest level that is known.
    finest = np.full(len(samples), UNKNOWN)
    start = 0
    for level in levels:
        labels = samples.targets[level]
        finest = np.where(labels != UNKNOWN, start + labels, finest)
        start += len(samples.classes[level])
    order = order[finest[order] != UNKNOWN]
    by_class = order[np.argsort(finest[order], kind="stable")]
    _, first, counts = np.unique(finest[by_class], return_index=True, return_counts=True)
    place = np.arange(len(by_class)) - np.repeat(first, counts)
    # The first of every class come before the second of any, should not all be kept.
    kept = by_class[np.argsort(place, kind="stable")][: int((place < SHOTS).sum())]
    return np.sort(kept[:MAX_PICTURES])


def _see(tower: VisionTower, samples: Samples, runtime: Runtime) -> HeadPictures:
    features = compute_features(
        tower,
        [Path(samples.root or "", image) for image in samples.images],
        device=runtime.device,
        progress=runtime.progress,
        read=runtime.read,
    )
    labels = {name: samples.targets[name] for name in tower.classes if _is_named(name)}
    return HeadPictures(features, labels)


def fit_reading(tower: VisionTower, pictures: HeadPictures, config: AnnotationConfig) -> Reading:
    """Return the temperature, and the thresholds, of every target that has a label on a picture."""
    temperatures, thresholds = {}, {}
    for (target, _), head in zip(tower.classes.items(), tower.heads, strict=True):
        labels = pictures.labels.get(target)
        if labels is None or not (labels != UNKNOWN).any():
            continue
        weights, biases = (value.detach().cpu().numpy() for value in head.parameters())
        probabilities = softmax(pictures.features @ weights.T + biases, axis=1)
        temperatures[target] = fit_temperature(probabilities, labels)
        if config.thresholds:
            calibrated = at_temperature(probabilities, temperatures[target])
            thresholds[target] = tune_thresholds(calibrated, labels).tolist()
    return Reading(temperatures, thresholds)


def _is_named(target: str) -> bool:
    """Return whether annotation names the classes of a target, which the item itself is not."""
    return target.startswith((CATEGORY, ATTRIBUTE))


def _write(part: HeadsPart, folder: Path) -> None:
    save_heads(part, folder / PICTURES)
    with whole_file(folder / READING) as path:
        path.write_text(json.dumps(part.reading._asdict()), "utf-8")
