"""The duplicates command."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.options import BundlePath, Json
from recsys.cli.output import console, print_json


def duplicates(
    bundle: BundlePath,
    out: Annotated[
        Path, typer.Option(help="File to write the groups to: .parquet, .json or .html.")
    ],
    images_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures; if unset, only picture names are compared."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Lowest cosine of two embeddings that links two items.")
    ] = 0.99,
    as_json: Json = False,
) -> None:
    """Find items that are in the catalogue twice: by equal title, picture or embedding."""
    from recsys import Bundle
    from recsys.curation.duplicates import check_format, find_duplicates, write_report

    check_format(out)
    opened = Bundle(bundle)
    found = find_duplicates(
        opened.items, opened.item_embeddings, images_root=images_root, threshold=threshold
    )
    write_report(found, opened.items.select("item_id", "title"), out)
    n_groups = found["group"].n_unique()
    if as_json:
        print_json({"items": len(found), "groups": n_groups, "file": out})
    else:
        console.print(f"{len(found):,} items in {n_groups:,} groups in {out}", highlight=False)
