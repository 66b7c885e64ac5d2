"""The contents of a vision report, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassResult:
    """How well one class is recognised.

    Args:
        name: Name of the class.
        precision: Share of the pictures predicted as this class that belong to it, 0 if the class
            is never predicted.
        recall: Share of the pictures of this class that are predicted as it.
        f1: Harmonic mean of precision and recall.
        support: Number of pictures of this class, at least 1.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Cell:
    """One entry of a confusion matrix: the number of pictures with this label and prediction."""

    label: int
    predicted: int
    count: int


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that are confused with each other.

    Args:
        first: Name of one class.
        second: Name of the other class.
        count: Number of pictures of either class that were predicted as the other.
        share: Share that these are of the pictures of both classes.
    """

    first: str
    second: str
    count: int
    share: float


@dataclass(frozen=True)
class Bin:
    """The pictures whose confidence is in one interval."""

    confidence: float  # mean over the pictures
    accuracy: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """The difference between confidence and accuracy.

    Args:
        ece: Expected calibration error, 0 to 1.
        bins: Bins of equal width from 0 to 1, None for a bin without pictures.
    """

    ece: float
    bins: tuple[Bin | None, ...]


@dataclass(frozen=True)
class Calibration:
    """How well probabilities match accuracy.

    Args:
        raw: Reliability of the tower's own probabilities.
        scaled: Reliability after the logits are divided by the temperature, None without one.
        temperature: Temperature fitted to other pictures, None if there were no such pictures.
    """

    raw: Reliability
    scaled: Reliability | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Slice:
    """Accuracy on one group of pictures.

    Args:
        grouping: Name of the grouping, such as ``store``.
        group: Name of the group.
        n_pictures: Number of pictures in the group with a known label.
        accuracy: Accuracy with Wilson's interval.
    """

    grouping: str
    group: str
    n_pictures: int
    accuracy: Estimate


@dataclass(frozen=True)
class Curve:
    """Accuracy on corrupted pictures at rising strengths.

    Args:
        corruption: Kind of corruption.
        unit: Unit of the strengths.
        strengths: Three strengths, the weakest first.
        accuracy: Accuracy at each strength.
    """

    corruption: str
    unit: str
    strengths: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class TargetResult:
    """All results of one target.

    Args:
        names: Names of all classes that can be predicted.
        n_pictures: Number of pictures measured.
        n_unknown: Number of pictures left out because their label is not known.
        accuracy: Share of correct predictions.
        macro_f1: Mean F1 of the classes that have pictures.
        majority: Share of the most frequent class, which is the accuracy of a constant prediction.
        classes: Results of the classes that have pictures, the most frequent first.
        confusion: Entries of the confusion matrix above zero, with indices into ``names``.
        confused: Siblings that are most often confused.
        n_mistakes: Number of wrong predictions.
        n_sibling_mistakes: Number of wrong predictions that are siblings of the correct class.
        calibration: Calibration of the probabilities.
        slices: Accuracy on groups of pictures.
        robustness: Accuracy curves, one for each kind of corruption.
    """

    names: tuple[str, ...]
    n_pictures: int
    n_unknown: int
    accuracy: Estimate
    macro_f1: Estimate
    majority: float
    classes: tuple[ClassResult, ...]
    confusion: tuple[Cell, ...]
    confused: tuple[ConfusedPair, ...]
    n_mistakes: int
    n_sibling_mistakes: int
    calibration: Calibration
    slices: tuple[Slice, ...] = ()
    robustness: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class HardPicture:
    """A picture whose correct class has a low probability.

    Args:
        image: Path of the picture, as in the samples.
        label: Correct class.
        label_probability: Probability of the correct class.
        predicted: Most probable class.
        predicted_probability: Probability of the most probable class.
        thumbnail: Small JPEG as a data URI.
    """

    image: str
    label: str
    label_probability: float
    predicted: str
    predicted_probability: float
    thumbnail: str


@dataclass(frozen=True)
class TowerReport:
    """Results of one tower on one set of pictures.

    Args:
        backbone: Name of the network.
        size: Height and width of the input in pixels.
        n_pictures: Number of pictures that could be read.
        rejected: Pictures that could not be read, with the reason.
        targets: Results of the targets that have a known label.
        unlabelled: Targets without a known label.
        hardest_target: Target that the hardest pictures are chosen by, the one with most classes.
        hardest: Hardest pictures, the hardest first.
        format: Version of the file format.
    """

    backbone: str
    size: int
    n_pictures: int
    rejected: Mapping[str, str]
    targets: Mapping[str, TargetResult]
    unlabelled: tuple[str, ...]
    hardest_target: str
    hardest: tuple[HardPicture, ...]
    format: Literal[1] = 1
