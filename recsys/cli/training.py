"""Commands that train and evaluate a bundle: train, refresh, evaluate."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import BundlePath, Config, Json
from recsys.cli.output import (
    announce_stage,
    console,
    print_json,
    print_report,
    progress_bar,
    write_picture,
)
from recsys.data.files import make_folder
from recsys.errors import InvalidArgumentError

if TYPE_CHECKING:
    from recsys.pipeline import Run

WORSE = 3  # exit status of a refresh whose bundle does not become the latest


def train(
    config: Config,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write the bundle to; required unless --preview is given."),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Fail if any row of the tables breaks a rule.")
    ] = False,
    tune: Annotated[
        int | None,
        typer.Option(
            help="Number of trials of a search for better settings of fusion, users and ranker, "
            "with those of earlier runs; the result is written to tuned.toml beside the bundle."
        ),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            help="Image file, such as a PNG, to write examples of augmented pictures to; "
            "nothing is trained."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a bundle; stages whose inputs have not changed are skipped.

    The bundle is then evaluated on held-out events and photos, and report.html and metrics.json
    are written to the same folder.
    """
    if preview is not None:
        _preview(config, preview, as_json=as_json)
        return
    if out is None:
        raise InvalidArgumentError(
            "--out must name the folder to write the bundle to, unless --preview is given"
        )
    _check_alone(
        "train",
        "train the tower with vision.finetuning under torchrun, save it and name it as pretrained "
        "of [vision]",
    )
    from recsys.config import load_config
    from recsys.evaluation.page import write_report
    from recsys.evaluation.run_report import report_run
    from recsys.pipeline import train as run

    settings = load_config(config)
    announce = announce_stage if not as_json else (lambda stage: None)
    result = run(settings, out, strict=strict, tune=tune, progress=not as_json, announce=announce)
    announce("evaluate")
    with progress_bar(visible=not as_json) as advance:
        report = report_run(result, settings.evaluation, title=settings.name, progress=advance)
    page = write_report(report, out)
    if as_json:
        stages = {stage.name: stage.seconds for stage in result.stages}
        tuning = {} if result.tuning is None else {"tuning": result.tuning.to_json()}
        print_json(
            {
                "bundle": result.bundle,
                "report": page,
                "left_out": result.left_out,
                "seconds": stages,
                **tuning,
            }
        )
        return
    print_report(report)
    _print_run(result)
    console.print(f"bundle {result.bundle}\nreport {page}")


def _print_run(run: "Run") -> None:
    """Print what the stages took, what was left out, and where a search left its settings."""
    from recsys.pipeline import TUNED

    for stage in run.stages:
        state = "unchanged" if stage.skipped else f"{stage.seconds:.1f} s"
        console.print(f"  {stage.name}: {state}")
    for reason in run.left_out:
        console.print(f"left out {reason}")
    if run.tuning is not None:
        console.print(f"settings {run.bundle.parent / TUNED}")


def refresh(
    bundle: BundlePath,
    events: Annotated[
        str, typer.Option(help="Newer events, a Parquet, CSV or NDJSON file or a glob.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write the new bundle to; that of the old one if unset."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration file, for its seed, device, split, users and ranker; those "
            "of the bundle if unset."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Make the new bundle the latest even if it is worse.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train users and rankers of a bundle again with newer events; towers and items stay.

    The new bundle becomes the latest unless a paired test finds it worse than the old one; then
    the exit status is 3. The figures are written to refresh.json beside the bundles.
    """
    _check_alone("refresh", "start it without torchrun")
    from recsys.config import load_config
    from recsys.evaluation.promotion import RECORD
    from recsys.evaluation.promotion import refresh as run

    result = run(
        bundle,
        events,
        out,
        config=load_config(config) if config else None,
        force=force,
        progress=not as_json,
        announce=announce_stage if not as_json else (lambda stage: None),
    )
    if as_json:
        print_json({**result.record, "bundle": result.bundle})
    else:
        added = result.events
        for line in added.quarantine.lines():
            console.print(f"  {line}", highlight=False)
        console.print(
            f"events: {added.n_added:,} added, {added.n_repeated:,} in the bundle already, "
            f"{added.n_unknown:,} of items that it lacks"
        )
        console.print(result.sentence, highlight=False)
        console.print(f"bundle {result.bundle}\nfigures {result.bundle.parent / RECORD}")
    if not result.promoted:
        raise typer.Exit(WORSE)


def _check_alone(command: str, fix: str) -> None:
    """Raise if torchrun started several processes, each of which would train everything.

    Raises:
        InvalidArgumentError: If there is more than one process.
    """
    from vision.training.processes import current_shard

    count = current_shard().world_size
    if count > 1:
        raise InvalidArgumentError(
            f"recsys {command} must run in one process, got {count} from torchrun; {fix}"
        )


def _preview(config: Path, out: Path, *, as_json: bool) -> None:
    _check_picture_name(out)
    from recsys.config import load_config
    from recsys.pipeline import load_tables
    from recsys.training.samples import label_pictures, picture_samples
    from vision.training.preview import contact_sheet

    settings = load_config(config)
    dataset = load_tables(settings)
    samples = picture_samples(dataset, label_pictures(dataset)).train
    sheet = contact_sheet(samples, settings.vision, seed=settings.seed)
    write_picture(sheet, out)
    if as_json:
        print_json({"file": out})
        return
    console.print(f"{settings.vision.augmentation} augmentation in {out}")


def _check_picture_name(out: Path) -> None:
    from PIL import Image

    known = Image.registered_extensions()
    if known.get(out.suffix.lower()) not in Image.SAVE:
        raise InvalidArgumentError(
            "preview must end in the suffix of an image format that can be written, such as "
            f".png, .jpg or .webp, got {out.name!r}"
        )


def evaluate(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a bundle, or of several bundles (the latest is used). Further ones "
            "are compared with the first; they must have the same events after the split."
        ),
    ],
    lists: Annotated[
        list[str],
        typer.Option(
            help="Recommendations of another system to compare with, a Parquet, CSV or NDJSON "
            "file with user_id, item_id, and score or rank; may be repeated."
        ),
    ] = [],  # noqa: B006 - typer reads it and nobody writes to it
    users: Annotated[
        str | None,
        typer.Option(
            help="Table with user_id and columns by which users are grouped, such as a region: a "
            "Parquet, CSV or NDJSON file."
        ),
    ] = None,
    exposure_by: Annotated[
        list[str],
        typer.Option(
            help="Item column or attribute to count exposure by, instead of those of the "
            "configuration; may be repeated."
        ),
    ] = [],  # noqa: B006 - typer reads it and nobody writes to it
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration file; its test photos are then evaluated too."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write report.html and metrics.json to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a bundle on the events after its split, beside the baselines.

    Other bundles and lists of recommendations are compared with it on the same users.
    """
    from recsys import Bundle
    from recsys.config import EvaluationConfig, load_config
    from recsys.evaluation.page import metrics, write_report
    from recsys.evaluation.run_report import evaluate as run
    from recsys.pipeline import load_tables

    settings = load_config(config) if config else None
    asked = settings.evaluation if settings else EvaluationConfig()
    if exposure_by:
        asked = asked.model_copy(update={"exposure_by": tuple(exposure_by)})
    first, *others = bundles
    opened = Bundle(first)
    if out is not None:
        make_folder(out)
    with progress_bar(visible=not as_json) as advance:
        report = run(
            opened,
            asked,
            title=settings.name if settings else first.name,
            bundles=_by_name("bundle", [str(one) for one in others]),
            lists=_by_name("list", lists),
            users=users,
            dataset=load_tables(settings) if settings else None,
            progress=advance,
        )
    page = write_report(report, out) if out is not None else None
    if as_json:
        print_json(metrics(report))
        return
    print_report(report)
    if page is not None:
        console.print(f"report {page}")


def _by_name(what: str, paths: Sequence[str]) -> dict[str, str]:
    """Return paths under the names that tables show: the paths themselves.

    Raises:
        InvalidArgumentError: If a path is given twice.
    """
    named = dict(zip(paths, paths, strict=True))
    if len(named) < len(paths):
        raise InvalidArgumentError(f"every {what} must be given once, got {list(paths)}")
    return named
