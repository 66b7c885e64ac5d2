"""Labels that a tower gives itself, where it is sure, to learn from beside those of people."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision.dataset import UNKNOWN, Rejected, Samples
from vision.errors import InvalidArgumentError
from vision.hierarchy import CategoryPath, consistent, decode, find_paths
from vision.labelling.readable import Readable
from vision.tower import VisionTower


class PseudoLabels(NamedTuple):
    """Pictures with labels that nobody has looked at."""

    samples: Samples  # -1 where a target is not sure enough
    probabilities: NDArray[np.float32]  # of the label of target, (n,)
    rejected: tuple[Rejected, ...]  # pictures that could not be read


def pseudo_label(
    tower: VisionTower,
    images: Sequence[Path],
    *,
    target: str,
    confidence: float = 0.9,
    per_class: int | None = None,
    root: Path | None = None,
) -> PseudoLabels:
    """Return the pictures that the tower is sure about, with its labels.

    Self-training in one pass, for one more ``finetune`` on the labels of people and these. Lee
    (2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method") labels every
    picture anew at each step, at a slowly growing weight; FixMatch (Sohn et al., 2020,
    https://arxiv.org/abs/2001.07685) labels a weakly changed view at each step, where it is sure,
    for a strongly changed one to learn. Here the labels stay and count like any other, and the
    strong changes are those of fine-tuning.

    A tower is seldom surer than one minus the label smoothing that it was trained with.

    Args:
        tower: Trained on what is labelled.
        images: Pictures without a label; unreadable ones are left out and reported.
        target: Target whose label must be sure for a picture to be taken. The others have a label
            where that is sure, too; the coarser ones of a category path always are.
        confidence: Least probability of a label, 0 to 1.
        per_class: Most pictures of any one class of target, the surest ones; unset takes all.
            What a tower finds often it would find still more often after learning from it.
        root: Folder that every picture must be in; images are then relative to it.

    Raises:
        InvalidArgumentError: If there is no such target, or a number is out of range.
    """
    if target not in tower.classes:
        raise InvalidArgumentError(
            f"target must be one of {', '.join(tower.classes)}, got {target!r}"
        )
    if not 0 < confidence <= 1:
        raise InvalidArgumentError(f"confidence must be above 0 and at most 1, got {confidence}")
    if per_class is not None and per_class < 1:
        raise InvalidArgumentError(f"per_class must be at least 1 or None, got {per_class}")
    pictures = Readable(images, root, tower.preprocess)
    paths = find_paths(tower.classes)
    probabilities = consistent(tower.predict(pictures), paths)
    labels = sure_labels(probabilities, paths, confidence)
    own = probabilities[target][np.arange(len(pictures.rows)), labels[target]]
    rows = surest(labels[target], own, per_class)
    samples = Samples(
        images=[images[pictures.rows[row]] for row in rows],
        targets={name: of_target[rows] for name, of_target in labels.items()},
        classes=tower.classes,
        root=root,
    )
    return PseudoLabels(samples, own[rows], tuple(pictures.rejected))


def sure_labels(
    probabilities: Mapping[str, NDArray[np.float32]],
    paths: Sequence[CategoryPath],
    confidence: float,
) -> dict[str, NDArray[np.int64]]:
    """Return the predicted class of every target, int64 (n,), -1 where it is not probable enough.

    Args:
        probabilities: (n, C) of every target, consistent along the paths.
        paths: From ``find_paths``, of the same classes.
        confidence: Least probability of a label.
    """
    labels = {}
    for target, predicted in decode(probabilities, paths).items():
        # A path that ends early has no class here; -1 then reads some column, which is not used.
        own = probabilities[target][np.arange(len(predicted)), predicted]
        labels[target] = np.where(own >= confidence, predicted, UNKNOWN)
    return labels


def surest(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating], per_class: int | None
) -> NDArray[np.int64]:
    """Return the rows of at most per_class labels of each class, the most probable, in order.

    Args:
        labels: Class indices (n,); rows of -1 are left out.
        probabilities: Of the labels, (n,).
        per_class: Most rows of one class; None is all.
    """
    order = np.lexsort((-probabilities, labels))  # by class, and the surest first in each
    order = order[labels[order] != UNKNOWN]
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts)
    return np.sort(order if per_class is None else order[place < per_class])


def combine(labelled: Samples, pseudo: Samples) -> Samples:
    """Return the labelled samples and then the others, as one set to learn from.

    A picture in both is taken once, with the labels that people gave it. If the roots differ, the
    new one is the closest folder that holds both.

    Args:
        labelled: With labels of people.
        pseudo: From ``pseudo_label``.

    Raises:
        InvalidArgumentError: If the classes differ, or only one of the two has a root.
    """
    if _names(labelled) != _names(pseudo):
        raise InvalidArgumentError(
            "pseudo must have the targets and classes of labelled, "
            f"got {list(pseudo.classes)} and {list(labelled.classes)}; "
            "label with a tower that was trained on labelled"
        )
    root, first, second = _common_root(labelled, pseudo)
    given = set(first)
    new = [row for row, image in enumerate(second) if image not in given]
    added = pseudo.take(new).targets
    return Samples(
        images=[*first, *(second[row] for row in new)],
        targets={
            name: np.concatenate([labels, added[name]]) for name, labels in labelled.targets.items()
        },
        classes=labelled.classes,
        root=root,
    )


def _names(samples: Samples) -> list[tuple[str, list[str]]]:
    return [(target, list(names)) for target, names in samples.classes.items()]


def _common_root(labelled: Samples, pseudo: Samples) -> tuple[Path | None, list[Path], list[Path]]:
    """Return one root, and the pictures of each relative to it."""
    if labelled.root == pseudo.root:
        return labelled.root, list(labelled.images), list(pseudo.images)
    if labelled.root is None or pseudo.root is None:
        raise InvalidArgumentError(
            "labelled and pseudo must both have a root or neither, got "
            f"{labelled.root} and {pseudo.root}; give pseudo_label the root of its images"
        )
    roots = [labelled.root.resolve(), pseudo.root.resolve()]
    common = Path(os.path.commonpath(roots))
    first, second = (
        [Path(os.path.relpath(root / image, common)) for image in samples.images]
        for root, samples in zip(roots, (labelled, pseudo), strict=True)
    )
    return common, first, second
