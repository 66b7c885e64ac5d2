"""Self-training: confident predictions on unlabelled pictures, to train on as labels."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision.arrays import Floats, Ints
from vision.dataset import UNKNOWN, Rejected, Samples
from vision.errors import InvalidArgumentError
from vision.hierarchy import CategoryPath, choose_classes, find_category_paths, reconcile_levels
from vision.labelling.readable import Readable
from vision.tower import VisionTower
from vision.tuning.ensemble import ensemble_predict_proba


class PseudoLabels(NamedTuple):
    """Pictures with labels that a tower predicted and nobody has checked."""

    samples: Samples  # -1 where the prediction is not confident enough
    probabilities: Floats  # probability of the label of the target, (n,)
    rejected: tuple[Rejected, ...]  # pictures that could not be read


def pseudo_label(
    tower: VisionTower | Sequence[VisionTower],
    images: Sequence[Path],
    *,
    target: str,
    confidence: float = 0.9,
    per_class: int | None = None,
    root: Path | None = None,
) -> PseudoLabels:
    """Return the pictures that the tower is confident about, with the predicted labels.

    This is self-training in one pass, followed by one more ``finetune`` on the result of
    ``combine``. Lee (2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning
    Method") predicts new labels at every step and increases their weight slowly. FixMatch (Sohn et
    al., 2020, https://arxiv.org/abs/2001.07685) predicts the label of a weakly augmented view at
    every step and trains on a strongly augmented one. Here the labels stay fixed and count like any
    other, and the augmentation is that of fine-tuning.

    The confidence of a tower rarely exceeds 1 minus the label smoothing that it was trained with.

    Args:
        tower: Tower that was trained on the labelled pictures; of several, with the same classes
            and the same size of pictures, the mean of the probabilities counts.
        images: Pictures without a label, relative to root where root is given. Unreadable ones are
            left out and reported.
        target: Target that must be confident for a picture to be taken. Other targets get a label
            if they are confident as well, which the coarser levels of a category path always are.
        confidence: Smallest probability of a label, above 0 and at most 1.
        per_class: Largest number of pictures in one class of the target, the most confident ones.
            A limit keeps frequent predictions from becoming more frequent still. None takes all.
        root: Folder that every picture must be in.

    Raises:
        InvalidArgumentError: If the target is unknown, or a number is out of range.
    """
    towers = [tower] if isinstance(tower, VisionTower) else tower
    classes = towers[0].classes
    if target not in classes:
        raise InvalidArgumentError(f"target must be one of {', '.join(classes)}, got {target!r}")
    if not 0 < confidence <= 1:
        raise InvalidArgumentError(f"confidence must be above 0 and at most 1, got {confidence}")
    if per_class is not None and per_class < 1:
        raise InvalidArgumentError(f"per_class must be at least 1 or None, got {per_class}")
    pictures = Readable(images, root, towers[0].preprocess)
    paths = find_category_paths(classes)
    probabilities = reconcile_levels(ensemble_predict_proba(towers, pictures), paths)
    labels = sure_labels(probabilities, paths, confidence)
    own = probabilities[target][np.arange(len(pictures.rows)), labels[target]]
    rows = surest(labels[target], own, per_class)
    samples = Samples(
        images=[images[pictures.rows[row]] for row in rows],
        targets={name: column[rows] for name, column in labels.items()},
        classes=classes,
        root=root,
    )
    return PseudoLabels(samples, own[rows], tuple(pictures.rejected))


def sure_labels(
    probabilities: Mapping[str, Floats],
    paths: Sequence[CategoryPath],
    confidence: float,
) -> dict[str, Ints]:
    """Return the predicted class of every target, int64 (n,), -1 where it is not probable enough.

    Args:
        probabilities: Class probabilities (n, C) of every target, from ``reconcile_levels``.
        paths: Result of ``find_category_paths`` for the same classes.
        confidence: Smallest probability of a label.
    """
    labels = {}
    for target, predicted in choose_classes(probabilities, paths).items():
        # Below an early end the class is -1, which reads the last column; the label stays -1.
        own = probabilities[target][np.arange(len(predicted)), predicted]
        labels[target] = np.where(own >= confidence, predicted, UNKNOWN)
    return labels


def surest(labels: Ints, probabilities: NDArray[np.floating], per_class: int | None) -> Ints:
    """Return the most probable rows of each class, at most ``per_class`` of them, in order.

    Args:
        labels: Class indices (n,). Rows with -1 are left out.
        probabilities: Probabilities of the labels (n,).
        per_class: Largest number of rows in one class. None takes all.
    """
    order = np.lexsort((-probabilities, labels))  # by class, the most probable first
    order = order[labels[order] != UNKNOWN]
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts)
    return np.sort(order if per_class is None else order[place < per_class])


def combine(labelled: Samples, pseudo: Samples) -> Samples:
    """Return the labelled samples followed by the pseudo-labelled ones, to train on together.

    A picture in both keeps only the labels that people gave it. If the roots differ, the new root
    is the closest folder that contains both.

    Args:
        labelled: Samples with labels from people; their unlabelled pictures and reader are kept.
        pseudo: Samples from ``pseudo_label``.

    Raises:
        InvalidArgumentError: If the classes differ, or only one of the two has a root.
    """
    if _names(labelled) != _names(pseudo):
        raise InvalidArgumentError(
            "pseudo must have the targets and classes of labelled, "
            f"got {list(pseudo.classes)} and {list(labelled.classes)}; "
            "label with a tower that was trained on labelled"
        )
    labelled, pseudo = _share_root(labelled, pseudo)
    given = set(labelled.images)
    added = pseudo.take([row for row, image in enumerate(pseudo.images) if image not in given])
    return replace(
        labelled,
        images=[*labelled.images, *added.images],
        targets={
            name: np.concatenate([labels, added.targets[name]])
            for name, labels in labelled.targets.items()
        },
    )


def _names(samples: Samples) -> list[tuple[str, list[str]]]:
    return [(target, list(names)) for target, names in samples.classes.items()]


def _share_root(labelled: Samples, pseudo: Samples) -> tuple[Samples, Samples]:
    """Return both samples with paths relative to the closest folder that contains both roots."""
    if labelled.root == pseudo.root:
        return labelled, pseudo
    if labelled.root is None or pseudo.root is None:
        raise InvalidArgumentError(
            "labelled and pseudo must both have a root or neither, got "
            f"{labelled.root} and {pseudo.root}; give pseudo_label the root of its images"
        )
    roots = (labelled.root.resolve(), pseudo.root.resolve())
    common = Path(os.path.commonpath(roots))
    return _move(labelled, roots[0], common), _move(pseudo, roots[1], common)


def _move(samples: Samples, root: Path, new: Path) -> Samples:
    """Return the samples with paths relative to a new root; root is their own, resolved."""
    images, unlabelled = (
        [Path(os.path.relpath(root / image, new)) for image in paths]
        for paths in (samples.images, samples.unlabelled)
    )
    return replace(samples, images=images, unlabelled=unlabelled, root=new)
