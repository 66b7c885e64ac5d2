"""The evaluation of a tower on held-out pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from vision.arrays import Ints
from vision.dataset import Samples
from vision.errors import InvalidArgumentError
from vision.report.calibration import fit_temperature
from vision.report.gallery import hardest_pictures
from vision.report.predictions import Predictions, collect_predictions
from vision.report.results import Curve, TargetResult, TowerReport
from vision.report.robustness import CORRUPTIONS
from vision.report.target import evaluate_probabilities
from vision.tower import VisionTower

Slices = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class EvaluationOptions:
    """How a tower is evaluated.

    Attributes:
        robustness: Whether to measure accuracy on corrupted pictures, too, 18 for each picture.
        seed: Random seed of the intervals and of the corruptions.
        batch_size: Pictures in one pass.
    """

    robustness: bool = True
    seed: int = 0
    batch_size: int = 64


DEFAULT_OPTIONS = EvaluationOptions()


def evaluate_tower(
    tower: VisionTower,
    samples: Samples,
    *,
    slices: Slices | None = None,
    calibration: Samples | None = None,
    options: EvaluationOptions = DEFAULT_OPTIONS,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> TowerReport:
    """Return the report of a tower on held-out pictures; the same arguments give the same report.

    Unreadable pictures are left out, and the report lists them.

    Args:
        tower: Tower to evaluate. It stays in training or evaluation mode.
        samples: Pictures that the tower was not trained on, with the tower's targets.
        slices: Group of every picture for each grouping, such as ``store``. If given, even empty,
            pictures are also grouped by the number of pictures of their class.
        calibration: Other pictures to fit temperatures to. None leaves temperatures out.
        options: Seed, batch size, and whether to corrupt pictures.
        device: Device to move the tower to and to compute on. None leaves the tower in place.
        progress: Whether to show Lightning's progress bar.

    Raises:
        InvalidArgumentError: If classes or groups do not match the samples, or no label is known.
        ImageError: If no picture can be read.
    """
    if options.batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {options.batch_size}")
    _check(tower, samples, calibration, slices or {})
    collect = partial(
        collect_predictions,
        tower,
        batch_size=options.batch_size,
        device=device,
        progress=progress,
    )
    predictions = collect(samples, seed=options.seed if options.robustness else None)
    temperatures = {}
    if calibration is not None:
        temperatures = _fit_temperatures(collect(calibration, seed=None), calibration)
    targets = _evaluate(samples, predictions, temperatures, slices, options.seed)
    finest = max(targets, key=lambda target: len(targets[target].names))
    return TowerReport(
        backbone=tower.spec.name,
        size=tower.preprocess.size,
        n_pictures=len(predictions.rows),
        rejected=predictions.rejected,
        targets=targets,
        unlabelled=tuple(target for target in samples.targets if target not in targets),
        hardest_target=finest,
        hardest=hardest_pictures(
            samples, finest, predictions.rows, predictions.probabilities[finest]
        ),
    )


def _evaluate(
    samples: Samples,
    predictions: Predictions,
    temperatures: Mapping[str, float],
    slices: Slices | None,
    seed: int,
) -> dict[str, TargetResult]:
    """Return the result of every target that has a known label."""
    if slices is not None:
        rows = predictions.rows.tolist()
        slices = {grouping: [groups[row] for row in rows] for grouping, groups in slices.items()}
    results = {}
    for target, all_labels in samples.targets.items():
        labels = all_labels[predictions.rows]
        if not (labels >= 0).any():
            continue
        result = evaluate_probabilities(
            predictions.probabilities[target],
            labels,
            samples.classes[target],
            temperature=temperatures.get(target),
            slices=slices,
            seed=seed,
        )
        results[target] = replace(result, robustness=_curves(predictions.corrupted[target], labels))
    if not results:
        raise InvalidArgumentError(
            "samples must have a readable picture with a known label in one of the targets "
            f"({', '.join(samples.targets)}), got only -1"
        )
    return results


def _fit_temperatures(predictions: Predictions, calibration: Samples) -> dict[str, float]:
    """Return the temperature of every target that has a known label to fit it to."""
    labels = {target: known[predictions.rows] for target, known in calibration.targets.items()}
    return {
        target: fit_temperature(predictions.probabilities[target], known)
        for target, known in labels.items()
        if (known >= 0).any()
    }


def _curves(corrupted: Ints, labels: Ints) -> tuple[Curve, ...]:
    """Return accuracy curves of predictions on corrupted pictures (n, V), in CORRUPTIONS order."""
    if corrupted.shape[1] == 0:
        return ()
    known = labels >= 0
    accuracies = iter((corrupted[known] == labels[known, None]).mean(axis=0).tolist())
    return tuple(
        Curve(name, unit, strengths, tuple(next(accuracies) for _ in strengths))
        for name, (_, strengths, unit) in CORRUPTIONS.items()
    )


def _check(
    tower: VisionTower,
    samples: Samples,
    calibration: Samples | None,
    slices: Slices,
) -> None:
    """Raise if the samples have no targets, other classes than the tower, or too few groups."""
    if not samples.targets:
        raise InvalidArgumentError("samples must have at least one target to measure, got none")
    for name, part in (("samples", samples), ("calibration", calibration)):
        for target, names in () if part is None else part.classes.items():
            if tower.classes.get(target) != tuple(names):
                raise InvalidArgumentError(
                    f"{name} must have the tower's classes for each target "
                    f"({', '.join(tower.classes)}), got other classes for {target!r}"
                )
    for grouping, groups in slices.items():
        if len(groups) != len(samples):
            raise InvalidArgumentError(
                f"slices[{grouping!r}] must have one group per picture ({len(samples)}), "
                f"got {len(groups)}"
            )
