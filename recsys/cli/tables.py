"""Commands on tables: check them, import published data sets."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.output import console, print_json, print_rows

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def check(
    config: Annotated[Path, typer.Argument(help="Configuration whose [data] names the tables.")],
    out: Annotated[Path, typer.Option(help="Folder for the rows that failed.")] = Path("quarantine"),
    strict: Annotated[bool, typer.Option(help="Fail if any row does.")] = False,
    as_json: Json = False,
) -> None:
    """Check the three tables and write the rows that fail, with the rule each failed."""
    from recsys.config import load_config
    from recsys.pipeline import load_tables

    dataset = load_tables(load_config(config), strict=strict)
    counts = dataset.quarantine.counts()
    files = dataset.quarantine.write(out)
    if as_json:
        print_json({"valid": dataset.n_rows(), "failed": counts, "files": files})
        return
    rows = [
        (table, rule, count) for table, rules in counts.items() for rule, count in rules.items()
    ]
    valid = ", ".join(f"{rows:,} {table}" for table, rows in dataset.n_rows().items())
    console.print(f"valid: {valid}")
    if rows:
        print_rows("failed", ("table", "rule", "rows"), rows)
        console.print(f"the rows are in {out}; training goes on without them unless --strict")


def import_source(
    source: Annotated[str, typer.Argument(help="grocery-store, online-retail, myntra, amazon-beauty.")],
    src: Annotated[Path, typer.Argument(help="The published file or folder.")],
    out: Annotated[Path, typer.Argument(help="Folder to write items, events and photos to.")],
) -> None:
    """Write a published data set as the three tables."""
    from recsys.data.sources import import_published

    console.print(import_published(source, src, out))
