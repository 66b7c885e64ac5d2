"""Commands for the vision tower alone: what it knows, why, what to label next, how to train it."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.output import console, print_json, print_rows

if TYPE_CHECKING:
    from recsys.config import TrainConfig
    from recsys.training.towers import PictureSamples
    from vision.tower import VisionTower

CALIBRATION_PICTURES = 200  # enough for the range of every activation

app = typer.Typer(help="Measure, explain, tune and export the vision tower.", no_args_is_help=True)

BundleFolder = Annotated[Path, typer.Argument(help="A bundle, or a folder of bundles.")]
Config = Annotated[Path, typer.Argument(help="Configuration of the shop.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    from recsys import Bundle
    from vision.report import evaluate_tower, write_report

    settings, samples = _open(config)
    if samples.test is None:
        raise ValueError(f"photos of {config} must have a test split, got none")
    measure = partial(
        evaluate_tower,
        samples=samples.test,
        calibration=samples.validation,
        robustness=robustness,
        progress=not as_json,
    )
    measured = measure(Bundle(bundle).vision)
    earlier = measure(_before(settings, samples)) if before else None
    page = write_report(measured, out, before=earlier)
    rows = [
        (name, one.n_pictures, f"{one.accuracy.mean:.3f}", f"{one.macro_f1.mean:.3f}")
        for name, one in measured.targets.items()
    ]
    if as_json:
        print_json({"report": page, "targets": rows})
        return
    print_rows("vision tower, test photos", ("target", "photos", "accuracy", "macro-F1"), rows)
    console.print(f"report {page}")


@app.command()
def explain(
    bundle: BundleFolder,
    photo: Annotated[Path, typer.Argument(help="A picture.")],
    out: Annotated[Path, typer.Option(help="PNG to write: the picture under a map of heat.")],
    target: Annotated[str | None, typer.Option(help="Such as category_2; else the last.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Else the predicted.")] = None,
    method: Annotated[str, typer.Option(help="grad_cam, lime or shap.")] = "grad_cam",
) -> None:
    """Show which parts of a picture speak for a class."""
    from recsys import Bundle
    from vision.explain import explain as run
    from vision.explain import overlay

    tower = Bundle(bundle).vision
    # An unknown method is refused where methods are known.
    found = run(tower, photo, target=target, class_name=class_name, method=method)  # type: ignore[arg-type]
    overlay(found).save(out, "PNG")
    console.print(f"{found.class_name}, probability {found.probability:.3f}; {out}")


@app.command()
def select(
    bundle: BundleFolder,
    config: Config,
    k: Annotated[int, typer.Option(help="How many pictures.")],
    out: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")],
    strategy: Annotated[str, typer.Option(help="entropy, margin, core_set or random.")] = "margin",
    seed: Annotated[int, typer.Option(help="Of random.")] = 0,
) -> None:
    """Write the photos without a label that are best labelled next."""
    from recsys import Bundle
    from vision.labelling.selection import select as run

    if out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"out must end in .parquet or .csv, got {out.name!r}")
    _, samples = _open(config)
    if not samples.unlabelled:
        raise ValueError(f"photos of {config} must have some without a label, got none")
    chosen = run(
        Bundle(bundle).vision,
        samples.unlabelled,
        k,
        strategy=strategy,  # type: ignore[arg-type]  # refused where strategies are known
        labelled=samples.train.images,
        seed=seed,
    )
    write = chosen.table.write_parquet if out.suffix == ".parquet" else chosen.table.write_csv
    write(out)
    console.print(f"{len(chosen.table)} of {len(samples.unlabelled)} photos in {out}")


@app.command()
def tune(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of the search; goes on where it stopped.")],
    trials: Annotated[int, typer.Option(help="Trials in all.")] = 20,
    as_json: Json = False,
) -> None:
    """Search the fields of the configuration's search table for the best accuracy on val photos."""
    from vision.tuning.search import search

    settings, samples = _open(config)
    if settings.search is None:
        raise ValueError(f"{config} must say what to search, such as [search.learning_rate]")
    if samples.validation is None:
        raise ValueError(f"photos of {config} must have a val split, got none")
    found = search(
        samples.train,
        samples.validation,
        settings.vision,
        settings.search,
        n_trials=trials,
        workdir=out,
        seed=settings.seed,
        progress=not as_json,
        device=settings.device,
    )
    best = found.best.model_dump(exclude_defaults=True)
    found.trials.write_parquet(out / "trials.parquet")
    if as_json:
        print_json({"value": found.value, "vision": best})
        return
    print_rows("best", ("field", "value"), sorted((name, str(one)) for name, one in best.items()))
    console.print(f"accuracy {found.value:.3f} on val; all trials in {out / 'trials.parquet'}")


@app.command()
def folds(
    config: Config,
    out: Annotated[Path, typer.Option(help="Folder of the runs; goes on where it stopped.")],
    count: Annotated[int, typer.Option(help="How many folds.")] = 5,
    as_json: Json = False,
) -> None:
    """Cross-validate the configured tower on the pictures that it would be trained on."""
    from vision.tuning.folds import cross_validate

    settings, samples = _open(config)
    result = cross_validate(
        samples.train,
        settings.vision,
        count,
        workdir=out,
        seed=settings.seed,
        progress=not as_json,
        device=settings.device,
    )
    if as_json:
        print_json({"mean": result.mean, "std": result.std})
        return
    rows = [(name, f"{mean:.3f}", f"{result.std[name]:.3f}") for name, mean in result.mean.items()]
    print_rows(f"{count} folds", ("metric", "mean", "std"), rows)


@app.command()
def export(
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="Folder for the ONNX files.")],
    config: Annotated[
        Path | None, typer.Option(help="Configuration whose pictures calibrate an int8 version.")
    ] = None,
) -> None:
    """Write the tower as ONNX, and as int8 ONNX where a configuration is given."""
    from recsys import Bundle
    from vision.deploy.export import export_onnx

    pictures = None
    if config is not None:
        _, samples = _open(config)
        spread = max(1, len(samples.train) // CALIBRATION_PICTURES)
        pictures = samples.train.images[::spread]
    export_onnx(Bundle(bundle).vision, out, int8_calibration=pictures)
    console.print(f"{', '.join(sorted(file.name for file in out.glob('*.onnx')))} in {out}")


def _before(settings: "TrainConfig", samples: "PictureSamples") -> "VisionTower":
    """Return the tower as fine-tuning finds it, with classifiers that need no training."""
    from vision.finetune import build_tower
    from vision.labelling.class_means import with_class_means

    if not settings.vision.pretrained:
        raise ValueError(
            "--before needs a pretrained backbone, got pretrained = false: random weights know "
            "nothing to measure"
        )
    return with_class_means(build_tower(samples.train.classes, settings.vision), samples.train)


def _open(config: Path) -> "tuple[TrainConfig, PictureSamples]":
    from recsys.config import load_config
    from recsys.pipeline import load_tables
    from recsys.training.towers import label_pictures, picture_samples

    settings = load_config(config)
    dataset = load_tables(settings)
    return settings, picture_samples(dataset, label_pictures(dataset))
