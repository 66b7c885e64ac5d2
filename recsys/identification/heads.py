"""What a bundle keeps of the pictures that its tower's heads are calibrated on, and grow by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from recsys.data.arrays import Floats, Ints
from vision.labelling.imprinting import LabelledFeatures, Reference

FEATURES = "features"


class Reading(NamedTuple):
    """How the logits of a tower's heads become names with probabilities."""

    temperatures: Mapping[str, float] = {}  # divisor of the logits by target
    # Of each class by target: that with the largest ratio of probability to threshold is named.
    thresholds: Mapping[str, Sequence[float]] = {}


class HeadPictures(NamedTuple):
    """Pictures as the heads of a tower see them."""

    features: Floats  # of the backbone (n, F)
    labels: Mapping[str, Ints]  # class indices by target (n,), -1 where unknown

    def of(self, target: str) -> LabelledFeatures:
        """Return the pictures with their labels of one target."""
        return LabelledFeatures(self.features, self.labels[target])


@dataclass(frozen=True, eq=False)
class HeadsPart:
    """The part of a bundle that calibrates the heads of the vision tower, and lets them grow.

    Args:
        learned: Some pictures of each category that the tower was trained on.
        held_out: Photos of val.
        reading: Temperatures and thresholds that were fitted on ``held_out``.
    """

    learned: HeadPictures
    held_out: HeadPictures
    reading: Reading

    def reference(self, target: str) -> Reference:
        """Return what puts a new class of a target on the scale of the others."""
        return Reference(self.learned.of(target), self.held_out.of(target))


def save_heads(part: HeadsPart, path: Path) -> None:
    """Write everything but the reading into a file."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, pictures in (("learned", part.learned), ("held_out", part.held_out)):
        tensors[f"{name}.{FEATURES}"] = pictures.features
        tensors |= {f"{name}.{target}": labels for target, labels in pictures.labels.items()}
    save_file(tensors, path)


def load_heads(path: Path, reading: Reading) -> HeadsPart:
    """Return the part from the file that ``save_heads`` wrote."""
    parts: dict[str, dict[str, NDArray[Any]]] = {"learned": {}, "held_out": {}}
    for key, values in load_file(path).items():
        name, _, target = key.partition(".")
        parts[name][target] = values
    learned, held_out = (HeadPictures(part.pop(FEATURES), part) for part in parts.values())
    return HeadsPart(learned, held_out, reading)
