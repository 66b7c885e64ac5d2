"""Commands for the vision tower alone: what it knows, why, what to label next, how to train it."""

import math
from collections.abc import Iterable, Sized
from dataclasses import asdict, astuple
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from recsys.cli.output import console, interval, print_json, print_rows, progress_bar

if TYPE_CHECKING:
    from recsys.config import TrainConfig
    from recsys.training.towers import PictureSamples
    from vision.explain import Method
    from vision.labelling.selection import Strategy
    from vision.report.results import TowerReport
    from vision.tower import VisionTower

CALIBRATION_PICTURES = 200  # enough for the range of every activation

app = typer.Typer(help="Measure, explain, tune and export the vision tower.", no_args_is_help=True)

BundleFolder = Annotated[Path, typer.Argument(help="A bundle, or a folder of bundles.")]
Config = Annotated[Path, typer.Argument(help="Configuration of the shop.")]
Target = Annotated[
    str | None, typer.Option(help="Such as attribute_colour; the finest category if unset.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Pictures = TypeVar("Pictures", bound=Sized)


@app.command()
def report(
    bundle: BundleFolder,
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder for vision.html and vision.json.")],
    robustness: Annotated[bool, typer.Option(help="Also ask about damaged pictures.")] = True,
    before: Annotated[
        bool, typer.Option(help="Also measure the pretrained backbone, before fine-tuning.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the tower on the test photos: per class, calibration, robustness, what is hardest."""
    from recsys.config import load_config
    from vision.report import evaluate_tower, write_report

    settings = load_config(config)
    tower = _tower(bundle, settings)
    samples = _samples(settings, progress=not as_json)
    photos = _required(samples.test, config, "photos whose split is test")
    untrained = _untrained(settings, samples) if before else None
    measure = partial(
        evaluate_tower,
        samples=photos,
        calibration=samples.validation,
        robustness=robustness,
        progress=not as_json,
    )
    measured = measure(tower)
    earlier = measure(untrained) if untrained is not None else None
    page = write_report(measured, out, before=earlier)
    if as_json:
        figures = {"targets": _figures(measured), "before": earlier and _figures(earlier)}
        print_json({"report": page, **figures})
        return
    if earlier is not None:
        _print_figures("before fine-tuning, test photos", earlier)
    _print_figures("vision tower, test photos", measured)
    console.print(f"report {page}")


@app.command()
def explain(
    bundle: BundleFolder,
    photo: Annotated[Path, typer.Argument(help="A picture.")],
    out: Annotated[Path, typer.Option(help="PNG to write: the picture under a map of heat.")],
    target: Target = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the predicted if unset.")
    ] = None,
    method: Annotated[str, typer.Option(help="grad_cam, lime or shap.")] = "grad_cam",
    as_json: Json = False,
) -> None:
    """Show which parts of a picture speak for a class, in red, and which against it, in blue."""
    from recsys import Bundle
    from vision.explain import explain as run
    from vision.explain import overlay

    _check_suffix(out, ".png")
    tower = Bundle(bundle).vision
    target = target or _finest(tower.classes)
    # An unknown method is refused where methods are known.
    known = cast("Method", method)
    found = run(tower, photo, target=target, class_name=class_name, method=known)
    out.parent.mkdir(parents=True, exist_ok=True)
    overlay(found).save(out)
    if as_json:
        answer = {"target": target, "class": found.class_name, "probability": found.probability}
        print_json({**answer, "file": out})
        return
    console.print(
        f"{target}: {found.class_name}, probability {found.probability:.3f}; heat in {out}"
    )


@app.command()
def select(
    bundle: BundleFolder,
    config: Config,
    k: Annotated[int, typer.Option("-k", "--k", help="How many photos.")],
    out: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")],
    strategy: Annotated[str, typer.Option(help="entropy, margin, core_set or random.")] = "margin",
    target: Target = None,
    seed: Annotated[int, typer.Option(help="Of random.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the photos without a label that are best labelled next, the most wanted first."""
    from recsys.config import load_config
    from vision.labelling.selection import select as run

    _check_suffix(out, ".parquet", ".csv")
    settings = load_config(config)
    tower = _tower(bundle, settings)
    samples = _samples(settings, progress=not as_json)
    pool = _required(samples.unlabelled, config, "photos of train without item_id and category")
    chosen = run(
        tower,
        pool,
        k,
        strategy=cast("Strategy", strategy),  # refused where strategies are known
        labelled=samples.train.images,
        target=target or _finest(tower.classes),
        seed=seed,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write = chosen.table.write_parquet if out.suffix == ".parquet" else chosen.table.write_csv
    write(out)
    if as_json:
        print_json({"rows": len(chosen.table), "unlabelled": len(pool), "file": out})
        return
    console.print(f"{len(chosen.table):,} of {len(pool):,} photos without a label in {out}")


@app.command()
def tune(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of the search; goes on where it stopped.")],
    trials: Annotated[int, typer.Option(help="Trials in all.")] = 20,
    metric: Annotated[
        str | None,
        typer.Option(help="Such as loss; accuracy of the finest category if unset."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the fields of the configuration's search table for the best result on val photos."""
    from recsys.config import load_config
    from vision.tuning.search import search

    settings = load_config(config)
    if settings.search is None:
        raise ValueError(f"{config} must say what to search, such as [search.learning_rate]")
    samples = _samples(settings, progress=not as_json)
    metric = metric or f"accuracy/{_finest(samples.train.classes)}"
    found = search(
        _required(samples.train, config, "pictures to train on"),
        _required(samples.validation, config, "photos whose split is val"),
        settings.vision,
        settings.search,
        n_trials=trials,
        workdir=out,
        seed=settings.seed,
        metric=metric,
        progress=not as_json,
        device=settings.device,
    )
    table = out / "trials.parquet"
    found.trials.write_parquet(table)
    best: Any = found.best.model_dump()
    chosen = {name: reduce(getitem, name.split("."), best) for name in settings.search.root}
    if as_json:
        print_json({"metric": metric, "value": found.value, "vision": chosen, "trials": table})
        return
    rows = [
        (name, f"{value:.4g}" if isinstance(value, float) else value)
        for name, value in chosen.items()
    ]
    print_rows("best for [vision]", ("field", "value"), rows)
    console.print(f"{metric} {found.value:.3f} on val photos; all trials in {table}")


@app.command()
def folds(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of the runs; goes on where it stopped.")],
    count: Annotated[int, typer.Option(help="How many folds.")] = 5,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Cross-validate the configured tower on the pictures that it would be trained on.

    Every class of the target has about equal shares of all folds.
    """
    from recsys.config import load_config
    from vision.tuning.folds import cross_validate

    settings = load_config(config)
    samples = _samples(settings, progress=not as_json)
    result = cross_validate(
        _required(samples.train, config, "pictures to train on"),
        settings.vision,
        count,
        workdir=out,
        seed=settings.seed,
        target=target or _finest(samples.train.classes),
        progress=not as_json,
        device=settings.device,
    )
    if as_json:
        # JSON has no nan, which is the deviation of a single fold that has the metric.
        std = {name: None if math.isnan(one) else one for name, one in result.std.items()}
        print_json({"mean": result.mean, "std": std})
        return
    rows = [(name, f"{mean:.3f}", f"{result.std[name]:.3f}") for name, mean in result.mean.items()]
    print_rows(f"{count} folds", ("metric", "mean", "std"), rows)


@app.command()
def export(
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="Folder for the ONNX files and their config.json.")],
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose pictures calibrate an int8 version.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the tower as ONNX, and as int8 ONNX where a configuration is given."""
    from recsys import Bundle
    from recsys.config import load_config
    from vision.deploy.export import INT8_FILE, MODEL_FILE, export_onnx

    tower, pictures = Bundle(bundle).vision, None
    files = [out / MODEL_FILE]
    if config is not None:
        train = _samples(load_config(config), progress=not as_json).train
        images = _required(train, config, "pictures to train on").images
        pictures = images[:: max(1, len(images) // CALIBRATION_PICTURES)]
        files.append(out / INT8_FILE)
    export_onnx(tower, out, int8_calibration=pictures)
    if as_json:
        print_json({"files": files})
        return
    console.print(f"{' and '.join(file.name for file in files)} in {out}")


def _tower(bundle: Path, settings: "TrainConfig") -> "VisionTower":
    """Return a bundle's tower on the device that the configuration wants."""
    from recsys import Bundle
    from vision.device import resolve_device

    return Bundle(bundle).vision.to(resolve_device(settings.device))


def _untrained(settings: "TrainConfig", samples: "PictureSamples") -> "VisionTower":
    """Return the tower as fine-tuning finds it, with classifiers that need no training."""
    from vision.device import resolve_device
    from vision.finetune import build_tower
    from vision.labelling.class_means import with_class_means

    if not settings.vision.pretrained:
        raise ValueError(
            "--before needs a pretrained backbone, got pretrained = false: random weights know "
            "nothing to measure"
        )
    tower = build_tower(samples.train.classes, settings.vision)
    return with_class_means(tower.to(resolve_device(settings.device)), samples.train)


def _samples(settings: "TrainConfig", *, progress: bool) -> "PictureSamples":
    from recsys.pipeline import load_tables
    from recsys.training.towers import label_pictures, picture_samples

    with progress_bar(visible=progress) as advance:
        dataset = load_tables(settings, progress=advance)
    return picture_samples(dataset, label_pictures(dataset))


def _finest(targets: Iterable[str]) -> str:
    """Return the finest category level; the last target where there are no categories.

    The last target of a shop is often the product itself, of which there are few pictures each.
    """
    names = list(targets)
    categories = [name for name in names if name.startswith("category_")]
    return (categories or names)[-1]


def _required(pictures: Pictures | None, config: Path, wanted: str) -> Pictures:
    """Return the pictures.

    Raises:
        ValueError: If there are none.
    """
    if not pictures:
        raise ValueError(f"{config} must have {wanted}, got none")
    return pictures


def _check_suffix(out: Path, *known: str) -> None:
    if out.suffix not in known:
        raise ValueError(f"out must end in {' or '.join(known)}, got {out.name!r}")


def _figures(measured: "TowerReport") -> dict[str, dict[str, object]]:
    """Return the headline of every target."""
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
