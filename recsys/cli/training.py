"""Commands that train and evaluate."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.output import announce_stage, console, print_json, print_systems, progress_bar

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def train(
    config: Annotated[Path, typer.Argument(help="Configuration; see docs/training.md.")],
    out: Annotated[Path, typer.Option(help="Folder of bundles.")],
    strict: Annotated[bool, typer.Option(help="Fail if any row of a table does.")] = False,
    as_json: Json = False,
) -> None:
    """Train a bundle; stages whose inputs have not changed are skipped."""
    from recsys.config import load_config
    from recsys.pipeline import train as run

    result = run(
        load_config(config), out, strict=strict, progress=not as_json, announce=announce_stage
    )
    if as_json:
        stages = {stage.name: stage.seconds for stage in result.stages}
        print_json({"bundle": result.bundle, "left_out": result.left_out, "seconds": stages})
        return
    for stage in result.stages:
        state = "unchanged" if stage.skipped else f"{stage.seconds:.1f} s"
        console.print(f"  {stage.name}: {state}")
    for reason in result.left_out:
        console.print(f"left out {reason}")
    console.print(f"bundle {result.bundle}")


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a folder of bundles.")],
    config: Annotated[
        Path | None, typer.Option(help="Configuration with the photos table, to score photos too.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, metrics.json.")] = None,
    as_json: Json = False,
) -> None:
    """Rank the events after the split beside baselines and ablations; score the test photos."""
    from recsys.report import evaluate_bundle

    with progress_bar() as advance:
        report = evaluate_bundle(bundle, config=config, progress=advance)
    if out is not None:
        path = report.write(out)
        console.print(f"report {path}")
    if as_json:
        print_json(json.loads(report.to_json()))
    else:
        print_systems(report)
