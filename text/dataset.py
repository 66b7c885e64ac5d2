"""Titles with what is known of them, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Class of a text whose class is not known; it adds nothing to that target's loss."""


@dataclass(frozen=True)
class Samples:
    """N texts and, for each target, the class of every text or ``UNKNOWN``.

    Args:
        texts: Titles, or titles and descriptions; N strings.
        targets: Target name to class numbers, int64 (N,): category levels, attribute columns.
        classes: Target name to the names of its C classes.

    Raises:
        ValueError: If lengths, names or class numbers disagree.
    """

    texts: Sequence[str]
    targets: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise ValueError(f"texts must be a sequence of strings, got {self.texts[:40]!r}")
        if set(self.targets) != set(self.classes):
            raise ValueError(
                f"targets and classes must have the same names, got {sorted(self.targets)} and "
                f"{sorted(self.classes)}"
            )
        for name, target in self.targets.items():
            if target.shape != (len(self.texts),) or target.dtype != np.int64:
                raise ValueError(
                    f"target {name!r} must be int64 of shape ({len(self.texts)},), "
                    f"got {target.dtype} of shape {target.shape}"
                )
            n_classes = len(self.classes[name])
            if len(target) and not (UNKNOWN <= target.min() and target.max() < n_classes):
                raise ValueError(
                    f"target {name!r} must be between {UNKNOWN} (unknown) and {n_classes - 1}, "
                    f"got {target.min()} to {target.max()}"
                )

    def __len__(self) -> int:
        return len(self.texts)
