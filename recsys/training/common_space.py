"""Find whether pictures and words of a shop can be compared, on its own categories."""

from collections.abc import Sequence

import numpy as np
import torch

from recsys.config import TrainConfig
from recsys.data.arrays import Floats, Ints
from recsys.identification.annotation import CATEGORY
from recsys.identification.common_space import (
    CommonSpace,
    common_spaces,
    fit_space,
    place_pictures,
    place_words,
)
from recsys.identification.heads import HeadPictures, HeadsPart
from recsys.models.fusion import ItemFusion
from recsys.training.labels import UNKNOWN
from text.encoder import TextEncoder
from vision.hierarchy import SEPARATOR
from vision.tower import VisionTower


def find_common_space(
    tower: VisionTower | None,
    text: TextEncoder | None,
    fusion: ItemFusion,
    heads: HeadsPart | None,
    *,
    untrained: bool,
) -> CommonSpace | None:
    """Return where pictures and words are compared; None if they cannot be.

    The names of the shop's own categories are the words that decide: on photos of val, the nearest
    of them must be right more often than by chance. Without such photos, the two halves of one
    published checkpoint are taken at their word, and at its temperature.

    Args:
        tower: Trained vision tower.
        text: Trained text encoder.
        fusion: Trained fusion.
        heads: Photos of val as the heads see them.
        untrained: Whether both towers have the weights that they began with, but for classifiers.
    """
    if tower is None or text is None:
        return None
    spaces = common_spaces(tower.dim, text.dim, fusion)
    named = None if heads is None else name_pictures(heads.held_out, tower.classes)
    if heads is None or named is None:
        began = [one and one.model_dump() for one in (tower.spec.weights, text.origin)]
        is_pair = untrained and began[0] == began[1] and "towers" in spaces
        return CommonSpace("towers", text.temperature) if is_pair and text.temperature else None
    rows, labels, words = named
    embeddings = _embed(tower, heads.held_out.features[rows])
    found = [
        fit_space(
            space,
            place_pictures(embeddings, fusion, space),
            place_words(words, text, fusion, space),
            labels,
        )
        for space in spaces
    ]
    fitted = [one for one in found if one is not None]
    return min(fitted, key=lambda one: one[1])[0] if fitted else None


def keeps_weights(config: TrainConfig) -> bool:
    """Return whether training leaves the towers as they began, but for the classifiers."""
    frozen = config.vision.transfer.frozen_stages == "all" and not config.vision.objective.metric
    released = config.vision.transfer.unfreeze_epochs is not None
    return frozen and not (released or config.text.epochs or config.alignment.epochs)


def name_pictures(
    pictures: HeadPictures, classes: dict[str, tuple[str, ...]]
) -> tuple[Ints, Ints, Sequence[str]] | None:
    """Return the pictures that have a category (n,), the name of each (n,), and all names.

    The name is the last part of the path, such as "Mugs" of "Home > Mugs". None without categories.
    """
    last = np.full(len(pictures.features), "", dtype=object)
    for target, names in classes.items():
        if target.startswith(CATEGORY) and target in pictures.labels:
            labels = pictures.labels[target]
            known = np.array([name.rpartition(SEPARATOR)[2] for name in names], dtype=object)
            last = np.where(labels != UNKNOWN, known[np.maximum(labels, 0)], last)
    rows = np.flatnonzero(last != "")
    words, labels = np.unique(last[rows].astype(str), return_inverse=True)
    return (rows, labels.astype(np.int64), words.tolist()) if len(rows) else None


@torch.inference_mode()
def _embed(tower: VisionTower, features: Floats) -> Floats:
    embeddings = tower.read(torch.from_numpy(features).to(tower.device)).embeddings
    return np.asarray(embeddings.cpu().numpy(), dtype=np.float32)
