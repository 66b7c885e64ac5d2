"""Commands that write uncertain photos for a person to label, and read the labels back."""

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.options import BundlePath, ImagesRoot, Json, check_suffix
from recsys.cli.output import console, print_json


def build_app() -> typer.Typer:
    """Return the commands under ``recsys review``."""
    app = typer.Typer(
        help="Let a person label the photos that a bundle is unsure about.", no_args_is_help=True
    )
    app.command("ask")(ask)
    app.command("learn")(learn)
    return app


def ask(
    bundle: BundlePath,
    photos: Annotated[Path, typer.Argument(help="Folder of photos, or a photos table.")],
    out: Annotated[
        Path, typer.Option(help="File to write the photos to label to: .parquet or .csv.")
    ],
    images_root: ImagesRoot = None,
    as_json: Json = False,
) -> None:
    """Write a table of the photos that get no certain answer, the most useful to label first."""
    from recsys import Bundle, ProductIdentifier, Recommender
    from recsys.curation.review import SUFFIXES, find_pool, refuse_labelled, write_review
    from recsys.curation.review import ask as run

    check_suffix(out, *SUFFIXES)
    refuse_labelled(out)
    pool = find_pool(photos, images_root=images_root)
    table = run(ProductIdentifier(Recommender(Bundle(bundle))), pool)
    write_review(table, out)
    if as_json:
        print_json({"photos": len(pool.names), "uncertain": len(table), "file": out})
        return
    console.print(f"{len(table):,} of {len(pool.names):,} photos are uncertain: {out}")
    console.print("fill in item_id where you know it, then run: recsys review learn")


def learn(
    bundle: BundlePath,
    labelled: Annotated[
        Path, typer.Argument(help="Table that `ask` wrote, with item_id filled in.")
    ],
    photos: Annotated[Path, typer.Argument(help="Photos table to add the labels to.")],
    images_root: ImagesRoot = None,
    as_json: Json = False,
) -> None:
    """Add a person's labels to the photos table, for the next training."""
    from recsys import Bundle
    from recsys.curation.review import learn as run

    item_ids = set(Bundle(bundle).items["item_id"])
    added = run(labelled, photos, item_ids, images_root=images_root)
    if as_json:
        print_json({**added._asdict(), "file": photos})
        return
    console.print(
        f"{photos}: {added.n_new:,} photos added, {added.n_labelled:,} given another item, "
        f"{added.n_empty:,} rows without item_id left out"
    )
