"""Commands on tables: check, import."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.options import Json
from recsys.cli.output import console, print_json, progress_bar
from recsys.data.files import make_folder

if TYPE_CHECKING:
    from recsys.data.quarantine import Quarantine


def check(
    config: Annotated[
        Path, typer.Argument(help="Configuration file of the shop, which names the tables.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write the rows that break a rule to.")
    ] = Path("quarantine"),
    strict: Annotated[bool, typer.Option(help="Fail if any row breaks a rule.")] = False,
    as_json: Json = False,
) -> None:
    """Check the tables and what they can train, and write the rows that break a rule.

    A row stays, and its bad cell counts as empty, if the cell may be empty.
    """
    from recsys.config import load_config
    from recsys.pipeline import check_tables, check_training

    settings = load_config(config)
    make_folder(out)
    with progress_bar(visible=not as_json) as advance:
        dataset = check_tables(settings, progress=advance)
    quarantine = dataset.quarantine
    files = quarantine.write(out)
    if not as_json:
        _print_rows(quarantine, files)
    if strict:
        quarantine.require_empty()
    # Without a valid row there is nothing to look at, and the lines above say so.
    usable = all(report.n_valid for report in quarantine.reports)
    left_out = check_training(dataset, settings) if usable else ()
    if as_json:
        print_json(
            {
                "valid": {report.table: report.n_valid for report in quarantine.reports},
                "failed": quarantine.counts(),
                "kept": quarantine.kept(),
                "files": files,
                "left_out": left_out,
            }
        )
        return
    for reason in left_out:
        console.print(f"left out {reason}", highlight=False)


def _print_rows(quarantine: "Quarantine", files: Sequence[Path]) -> None:
    for report in quarantine.reports:
        console.print(f"{report.table}: {report.n_valid:,} of {report.n_rows:,} rows are used")
    for line in quarantine.lines():
        console.print(f"  {line}", highlight=False)
    for file in files:
        console.print(f"rows that broke a rule: {file}")


def import_source(
    source: Annotated[
        str,
        typer.Argument(
            help="Data set: grocery-store, online-retail, myntra or amazon-beauty; or folder, for "
            "your own pictures in a folder for each class."
        ),
    ],
    src: Annotated[Path, typer.Argument(help="File or folder of the data set, as published.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the tables and pictures to.")],
    as_json: Json = False,
) -> None:
    """Convert a data set, or a folder of labelled pictures, to the tables that training reads."""
    from recsys.data.sources.registry import import_source as run

    with progress_bar(visible=not as_json) as advance:
        imported = run(source, src, out, progress=advance)
    counts = {
        table: count
        for table in ("items", "events", "photos")
        if (count := getattr(imported, f"n_{table}"))
    }
    if as_json:
        print_json({"out": out, "rows": counts, "notes": imported.notes})
        return
    rows = ", ".join(f"{count:,} {table}" for table, count in counts.items())
    console.print(f"{source}: {rows} in {out}")
    for note in imported.notes:
        console.print(f"  {note}", highlight=False)
