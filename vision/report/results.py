"""Everything that a vision report says, as plain values."""

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
        name: The class.
        precision: Share of the pictures given this class that are of it; 0 where none is given it.
        recall: Share of its pictures that are given it.
        f1: Harmonic mean of the two.
        support: Its pictures, at least 1.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Cell:
    """One entry of a confusion matrix: how many pictures of a class were given another."""

    label: int
    predicted: int
    count: int


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that are taken for each other.

    Args:
        first: One class.
        second: The other.
        count: Pictures of either that were given the other.
        share: Of the pictures of both.
    """

    first: str
    second: str
    count: int
    share: float


@dataclass(frozen=True)
class Bin:
    """The pictures whose confidence falls into one interval."""

    confidence: float  # mean
    accuracy: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """How far confidence and accuracy are apart.

    Args:
        ece: Expected calibration error, 0 to 1.
        bins: Of equal width from 0 to 1; None where no confidence fell.
    """

    ece: float
    bins: tuple[Bin | None, ...]


@dataclass(frozen=True)
class Calibration:
    """Whether a probability means what it says.

    Args:
        raw: Of the tower's own probabilities.
        scaled: After dividing the logits by the temperature, where there is one.
        temperature: Fitted on other pictures; None where there were none.
    """

    raw: Reliability
    scaled: Reliability | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Slice:
    """Accuracy on some of the pictures.

    Args:
        grouping: What they were grouped by, such as ``store``.
        group: Which group.
        n_pictures: Pictures in it whose label is known.
        accuracy: With Wilson's interval.
    """

    grouping: str
    group: str
    n_pictures: int
    accuracy: Estimate


@dataclass(frozen=True)
class Curve:
    """Accuracy on pictures that were changed, more with every strength.

    Args:
        corruption: How they were changed.
        unit: What the strengths count.
        strengths: Three, the weakest first.
        accuracy: At each.
    """

    corruption: str
    unit: str
    strengths: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class TargetResult:
    """All about one target.

    Args:
        names: Every class that could be predicted.
        n_pictures: Pictures measured.
        n_unknown: Pictures left out because their label is not known.
        accuracy: Share that is right.
        macro_f1: Mean F1 of the classes that have pictures.
        majority: Share of the most frequent class: what a constant answer would reach.
        classes: Those that have pictures, the most frequent first.
        confusion: Without the zeros, by label and then by prediction; numbers are those of names.
        confused: Siblings most often taken for each other.
        n_mistakes: Wrong answers.
        n_sibling_mistakes: Those that gave a sibling of the right class.
        calibration: Of the probabilities.
        slices: Groups of pictures.
        robustness: One curve per kind of change.
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
    """A picture whose right class was thought unlikely.

    Args:
        image: Its file, as the samples name it.
        label: The right class.
        label_probability: What the tower gave it.
        predicted: The class that the tower found most likely.
        predicted_probability: What the tower gave that.
        thumbnail: A small JPEG as a data URI.
    """

    image: str
    label: str
    label_probability: float
    predicted: str
    predicted_probability: float
    thumbnail: str


@dataclass(frozen=True)
class TowerReport:
    """One tower's results on one set of pictures.

    Args:
        backbone: Its network.
        size: Height and width of what it sees, in pixels.
        n_pictures: Pictures that could be read.
        rejected: Pictures that could not, and why.
        targets: Results of the targets that have a known label.
        unlabelled: Targets without any.
        hardest_target: The target with the most classes, which the hardest pictures are of.
        hardest: Hardest first.
        format: Of the file.
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
