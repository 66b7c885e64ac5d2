"""Everything about one target, from its probabilities and labels alone."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vision.errors import InvalidArgumentError
from vision.report.calibration import Probabilities, at_temperature, reliability
from vision.report.metrics import (
    accuracy_and_macro_f1,
    class_results,
    confused_pairs,
    count_confusion,
    sibling_mistakes,
)
from vision.report.results import Calibration, Slice, TargetResult
from vision.report.slices import accuracy_by_frequency, accuracy_by_group


def evaluate_probabilities(
    probabilities: Probabilities,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    temperature: float | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> TargetResult:
    """Return what these predictions are worth; pictures of unknown label are left out and counted.

    Where the probabilities come from does not matter: one tower, several, or a rule on top of them.

    Args:
        probabilities: (n, C); the largest is the prediction, the first of several.
        labels: Right classes, int64 (n,); -1 where unknown.
        classes: Names (C); siblings are those whose paths ("Fruit > Apple") have the same parent.
        temperature: From ``fit_temperature`` on other pictures; None leaves scaling out.
        slices: The group of every picture (n), by what they are grouped by. Where it is given,
            even empty, the pictures are also grouped by how many their class has.
        seed: Of the bootstrap intervals.

    Raises:
        InvalidArgumentError: If shapes disagree, rows are no probabilities, or no label is known.
    """
    _check(probabilities, labels, classes, slices or {})
    known = labels >= 0
    p, own = probabilities[known], labels[known]
    predicted = p.argmax(axis=1)
    confusion = count_confusion(own, predicted, len(classes))
    accuracy, macro_f1 = accuracy_and_macro_f1(confusion, seed=seed)
    by_class = class_results(confusion, classes)
    return TargetResult(
        names=tuple(classes),
        n_pictures=len(own),
        n_unknown=int((~known).sum()),
        accuracy=accuracy,
        macro_f1=macro_f1,
        majority=by_class[0].support / len(own),
        classes=by_class,
        confusion=confusion.cells,
        confused=confused_pairs(confusion, classes),
        n_mistakes=int((predicted != own).sum()),
        n_sibling_mistakes=sibling_mistakes(confusion, classes).n_pictures,
        calibration=_calibrate(p, own, temperature),
        slices=() if slices is None else _slice(predicted == own, own, known, slices),
    )


def _calibrate(
    probabilities: Probabilities, labels: NDArray[np.int64], temperature: float | None
) -> Calibration:
    raw = reliability(probabilities, labels)
    if temperature is None:
        return Calibration(raw)
    scaled = reliability(at_temperature(probabilities, temperature), labels)
    return Calibration(raw, scaled, temperature)


def _slice(
    right: NDArray[np.bool_],
    labels: NDArray[np.int64],
    known: NDArray[np.bool_],
    slices: Mapping[str, Sequence[str]],
) -> tuple[Slice, ...]:
    found: list[Slice] = []
    for grouping, groups in slices.items():
        of_known = [group for group, labelled in zip(groups, known, strict=True) if labelled]
        found.extend(accuracy_by_group(right, of_known, grouping))
    return (*found, *accuracy_by_frequency(right, labels))


def _check(
    probabilities: Probabilities,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str]],
) -> None:
    if probabilities.shape != (len(labels), len(classes)):
        raise InvalidArgumentError(
            f"probabilities must have shape ({len(labels)}, {len(classes)}) to match labels and "
            f"classes, got {probabilities.shape}"
        )
    # Written so that NaN fails, too.
    if not ((probabilities >= 0) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-3)[:, None]).all():
        raise InvalidArgumentError("probabilities must be at least 0 and add up to 1 in every row")
    if labels.size and not -1 <= labels.min() <= labels.max() < len(classes):
        raise InvalidArgumentError(
            f"labels must be between -1 and {len(classes) - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    if not (labels >= 0).any():
        raise InvalidArgumentError(
            f"labels must have a known one to measure, got {len(labels)} that are all -1"
        )
    for grouping, groups in slices.items():
        if len(groups) != len(labels):
            raise InvalidArgumentError(
                f"slices[{grouping!r}] must have one group per picture ({len(labels)}), "
                f"got {len(groups)}"
            )
