"""Measure a tower on held-out pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vision.dataset import Samples
from vision.errors import InvalidArgumentError
from vision.report.answers import Answers, ask
from vision.report.calibration import fit_temperature
from vision.report.gallery import hardest_pictures
from vision.report.results import Curve, TargetResult, TowerReport
from vision.report.robustness import CORRUPTIONS
from vision.report.target import evaluate_probabilities
from vision.tower import VisionTower

Slices = Mapping[str, Sequence[str]]


def evaluate_tower(
    tower: VisionTower,
    samples: Samples,
    *,
    slices: Slices | None = None,
    calibration: Samples | None = None,
    robustness: bool = True,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> TowerReport:
    """Return all that a report says of the tower, a function of the arguments alone.

    Pictures that cannot be read are left out and named.

    Args:
        tower: Left in the mode that it is in.
        samples: Pictures that it was not trained on; their targets must be among the tower's.
        slices: The group of every picture, by what they are grouped by, such as ``store``. Where
            it is given, even empty, pictures are also grouped by how many their class has.
        calibration: Yet other pictures, to fit the temperatures to; without them there are none.
        robustness: Whether to ask about changed pictures, too, 18 of each.
        seed: Of the intervals and the changes.
        batch_size: Pictures in one pass.
        device: Where to compute; the tower is moved there. None leaves it where it is.
        progress: Show Lightning's progress bar.

    Raises:
        InvalidArgumentError: If classes or groups do not fit, or no label is known.
        ImageError: If no picture can be read.
    """
    _check(tower, samples, calibration, slices, batch_size)
    asked = partial(ask, tower, batch_size=batch_size, device=device, progress=progress)
    answers = asked(samples, seed=seed if robustness else None)
    temperatures = {}
    if calibration is not None:
        temperatures = _fit_temperatures(asked(calibration, seed=None), calibration)
    targets = _evaluate(samples, answers, temperatures, slices, seed)
    finest = max(targets, key=lambda target: len(targets[target].names))
    return TowerReport(
        backbone=tower.spec.name,
        size=tower.preprocess.size,
        n_pictures=len(answers.rows),
        rejected=answers.rejected,
        targets=targets,
        unlabelled=tuple(target for target in samples.targets if target not in targets),
        hardest_target=finest,
        hardest=hardest_pictures(samples, finest, answers.rows, answers.probabilities[finest]),
    )


def _evaluate(
    samples: Samples,
    answers: Answers,
    temperatures: Mapping[str, float],
    slices: Slices | None,
    seed: int,
) -> dict[str, TargetResult]:
    """Return the result of every target that has a known label."""
    if slices is not None:
        rows = answers.rows.tolist()
        slices = {grouping: [groups[row] for row in rows] for grouping, groups in slices.items()}
    results = {}
    for target, all_labels in samples.targets.items():
        labels = all_labels[answers.rows]
        if not (labels >= 0).any():
            continue
        result = evaluate_probabilities(
            answers.probabilities[target],
            labels,
            samples.classes[target],
            temperature=temperatures.get(target),
            slices=slices,
            seed=seed,
        )
        results[target] = replace(result, robustness=_curves(answers.changed[target], labels))
    if not results:
        raise InvalidArgumentError(
            f"samples must have a known label of a readable picture in one of the targets "
            f"({', '.join(samples.targets)}), got only -1"
        )
    return results


def _fit_temperatures(answers: Answers, calibration: Samples) -> dict[str, float]:
    """Return the temperature of every target that has a known label to fit it to."""
    labels = {target: known[answers.rows] for target, known in calibration.targets.items()}
    return {
        target: fit_temperature(answers.probabilities[target], known)
        for target, known in labels.items()
        if (known >= 0).any()
    }


def _curves(changed: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[Curve, ...]:
    """Return the accuracy of predictions on changed pictures (n, V), in CORRUPTIONS' order."""
    if changed.shape[1] == 0:
        return ()
    known = labels >= 0
    accuracies = iter((changed[known] == labels[known, None]).mean(axis=0).tolist())
    return tuple(
        Curve(name, unit, strengths, tuple(next(accuracies) for _ in strengths))
        for name, (_, strengths, unit) in CORRUPTIONS.items()
    )


def _check(
    tower: VisionTower,
    samples: Samples,
    calibration: Samples | None,
    slices: Slices | None,
    batch_size: int,
) -> None:
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    if not samples.targets:
        raise InvalidArgumentError(
            "samples must have at least one target, got none: nothing to measure"
        )
    for name, some in (("samples", samples), ("calibration", calibration)):
        for target, names in () if some is None else some.classes.items():
            if tower.classes.get(target) != tuple(names):
                raise InvalidArgumentError(
                    f"{name} must have the tower's classes of each target "
                    f"({', '.join(tower.classes)}), got others for {target!r}"
                )
    for grouping, groups in (slices or {}).items():
        if len(groups) != len(samples):
            raise InvalidArgumentError(
                f"slices[{grouping!r}] must have one group per picture ({len(samples)}), "
                f"got {len(groups)}"
            )
