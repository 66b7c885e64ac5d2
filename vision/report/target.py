"""The evaluation of one target, from its probabilities and labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from vision.arrays import Bools, Ints
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
    labels: Ints,
    classes: Sequence[str],
    *,
    temperature: float | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> TargetResult:
    """Return accuracy, confusions and calibration of predictions, whatever made them.

    Pictures without a known label are left out and counted.

    Args:
        probabilities: Class probabilities (n, C). The largest, or the first of several largest, is
            the prediction.
        labels: Correct classes, int64 (n,), -1 where unknown.
        classes: Class names (C). Paths such as "Fruit > Apple" with the same parent are siblings.
        temperature: Result of ``fit_temperature`` for other pictures. None leaves scaling out.
        slices: Group of every picture (n) for each grouping. If given, even empty, pictures are
            also grouped by the number of pictures of their class.
        seed: Random seed of the bootstrap intervals.

    Raises:
        InvalidArgumentError: If shapes disagree, rows are not probabilities, or no label is known.
    """
    _check(probabilities, labels, classes, slices or {})
    known = labels >= 0
    p, correct = probabilities[known], labels[known]
    predicted = p.argmax(axis=1)
    confusion = count_confusion(correct, predicted, len(classes))
    accuracy, macro_f1 = accuracy_and_macro_f1(confusion, seed=seed)
    by_class = class_results(confusion, classes)
    return TargetResult(
        names=tuple(classes),
        n_pictures=len(correct),
        n_unknown=int((~known).sum()),
        accuracy=accuracy,
        macro_f1=macro_f1,
        majority=by_class[0].support / len(correct),
        classes=by_class,
        confusion=confusion.cells,
        confused=confused_pairs(confusion, classes),
        n_mistakes=int((predicted != correct).sum()),
        n_sibling_mistakes=sibling_mistakes(confusion, classes).n_pictures,
        calibration=_calibrate(p, correct, temperature),
        slices=() if slices is None else _slice(predicted == correct, correct, known, slices),
    )


def _calibrate(
    probabilities: Probabilities, labels: Ints, temperature: float | None
) -> Calibration:
    raw = reliability(probabilities, labels)
    if temperature is None:
        return Calibration(raw)
    scaled = reliability(at_temperature(probabilities, temperature), labels)
    return Calibration(raw, scaled, temperature)


def _slice(
    right: Bools,
    labels: Ints,
    known: Bools,
    slices: Mapping[str, Sequence[str]],
) -> tuple[Slice, ...]:
    found: list[Slice] = []
    for grouping, groups in slices.items():
        of_known = [group for group, labelled in zip(groups, known, strict=True) if labelled]
        found.extend(accuracy_by_group(right, of_known, grouping))
    return (*found, *accuracy_by_frequency(right, labels))


def _check(
    probabilities: Probabilities,
    labels: Ints,
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str]],
) -> None:
    if probabilities.shape != (len(labels), len(classes)):
        raise InvalidArgumentError(
            f"probabilities must have shape ({len(labels)}, {len(classes)}) to match labels and "
            f"classes, got {probabilities.shape}"
        )
    # The comparisons are written so that NaN fails, too.
    if not ((probabilities >= 0) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-3)[:, None]).all():
        raise InvalidArgumentError("probabilities must be at least 0 and add up to 1 in every row")
    if labels.size and not -1 <= labels.min() <= labels.max() < len(classes):
        raise InvalidArgumentError(
            f"labels must be between -1 and {len(classes) - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    if not (labels >= 0).any():
        raise InvalidArgumentError(
            f"labels must have a known label to measure, got {len(labels)} times -1"
        )
    for grouping, groups in slices.items():
        if len(groups) != len(labels):
            raise InvalidArgumentError(
                f"slices[{grouping!r}] must have one group per picture ({len(labels)}), "
                f"got {len(groups)}"
            )
