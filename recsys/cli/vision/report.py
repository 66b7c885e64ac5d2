"""The command that measures the vision tower on test photos."""

from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import BundlePath, Config, Json
from recsys.cli.output import console, interval, print_json, print_rows
from recsys.cli.vision.inputs import load_samples, load_tower, required, with_added_classes
from recsys.data.files import make_folder, writing
from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys.config import TrainConfig
    from recsys.training.samples import PictureSamples
    from vision.report.results import TowerReport
    from vision.tower import VisionTower


def report(
    bundle: BundlePath,
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder to write vision.html and vision.json to.")],
    robustness: Annotated[
        bool, typer.Option(help="Also measure accuracy on distorted photos.")
    ] = True,
    before: Annotated[
        bool, typer.Option(help="Also measure the pretrained backbone, before fine-tuning.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure accuracy, calibration and robustness on test photos, and show the hardest photos."""
    from recsys.config import load_config
    from vision.report import EvaluationOptions, evaluate_tower, write_report

    settings = load_config(config)
    tower = load_tower(bundle, settings)
    samples = load_samples(settings, progress=not as_json)
    photos = required(samples.test, config, "photos whose split is test")
    untrained = _untrained(settings, samples) if before else None
    make_folder(out)
    validation = samples.validation

    def measure(tower: "VisionTower") -> "TowerReport":
        return evaluate_tower(
            tower,
            with_added_classes(photos, tower.classes),
            calibration=validation and with_added_classes(validation, tower.classes),
            options=EvaluationOptions(robustness=robustness),
            progress=not as_json,
        )

    measured = measure(tower)
    earlier = measure(untrained) if untrained is not None else None
    with writing(out):
        page = write_report(measured, out, before=earlier)
    if as_json:
        figures = {"targets": _figures(measured), "before": earlier and _figures(earlier)}
        print_json({"report": page, **figures})
        return
    if earlier is not None:
        _print_figures("before fine-tuning, test photos", earlier)
    _print_figures("vision tower, test photos", measured)
    console.print(f"report {page}")


def _untrained(settings: "TrainConfig", samples: "PictureSamples") -> "VisionTower":
    """Return the tower before fine-tuning, with class means as classifiers."""
    from vision.device import resolve_device
    from vision.finetuning import build_tower
    from vision.labelling.class_means import with_class_means
    from vision.networks.start import decide_start

    if settings.vision.pretraining is not None:
        raise InvalidArgumentError(
            "--before needs the weights that fine-tuning started from, which "
            "[vision.pretraining] writes beside the bundles: set pretrained to "
            "OUT/.stages/vision-KEY/checkpoints/pretraining/backbone and remove the table "
            "[vision.pretraining]"
        )
    decided = decide_start(settings.vision)
    if not decided.pretrained:
        raise InvalidArgumentError(
            "--before needs a pretrained backbone, got pretrained = false: a backbone of random "
            "weights has learnt nothing to measure"
        )
    tower = build_tower(samples.train.classes, decided)
    return with_class_means(tower.to(resolve_device(settings.device)), samples.train)


def _figures(measured: "TowerReport") -> dict[str, dict[str, object]]:
    """Return the headline figures of every target, as JSON values."""
    return {
        name: {
            "photos": one.n_pictures,
            "accuracy": asdict(one.accuracy),
            "macro_f1": asdict(one.macro_f1),
        }
        for name, one in measured.targets.items()
    }


def _print_figures(title: str, measured: "TowerReport") -> None:
    from recsys.evaluation.bootstrap import Estimate

    rows = [
        (
            name,
            one.n_pictures,
            interval(Estimate(*astuple(one.accuracy))),
            interval(Estimate(*astuple(one.macro_f1))),
        )
        for name, one in measured.targets.items()
    ]
    print_rows(title, ("target", "photos", "accuracy [95 %]", "macro-F1 [95 %]"), rows)
