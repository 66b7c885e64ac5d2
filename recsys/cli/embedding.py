"""The embed command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys.cli.options import BundlePath, ImagesRoot, Json, with_options
from recsys.cli.output import console, print_json, progress_bar
from recsys.errors import InvalidArgumentError


@dataclass(frozen=True)
class Compute:
    """Which share of the items is embedded, where, and in which number format."""

    shard: Annotated[
        str | None,
        typer.Option(help="Share of the items to embed as i/n, with i from 0 to n - 1."),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where to compute: this machine or a Ray cluster."),
    ] = "local"
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Device that the networks run on.")
    ] = "cpu"
    precision: Annotated[
        Literal["auto", "32-true", "bf16-mixed"],
        typer.Option(
            help="Number format of the networks; auto is faster on hardware with bfloat16, "
            "and changes embeddings by about 0.01."
        ),
    ] = "32-true"


@with_options
def embed(
    bundle: BundlePath,
    out: Annotated[
        Path,
        typer.Option(help="Folder to write Parquet parts to, or one file that ends in .parquet."),
    ],
    compute: Compute,
    items: Annotated[Path | None, typer.Option(help="Items table to embed, or a glob.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="UTF-8 text file to embed, one text a line.")
    ] = None,
    images_root: ImagesRoot = None,
    as_json: Json = False,
) -> None:
    """Embed items or texts into the item space; run it again to continue where it stopped."""
    from recsys import Bundle
    from recsys.bulk import EmbedOptions, Shard, embed_items, embed_texts
    from recsys.bulk.parts import WHOLE
    from vision.device import resolve_device

    if (items is None) == (texts is None):
        raise InvalidArgumentError(
            "exactly one of --items and --texts must be given, got "
            f"{'neither' if items is None else 'both'}"
        )
    place = str(resolve_device(compute.device))
    if texts is not None:
        if compute.shard is not None or compute.engine != "local":
            raise InvalidArgumentError(
                "--shard and --engine must go with --items, got them with --texts"
            )
        count = embed_texts(Bundle(bundle), texts, out, device=place, precision=compute.precision)
        if as_json:
            print_json({"rows": count, "file": out})
        else:
            console.print(f"{count:,} embeddings in {out}")
        return
    assert items is not None, "exactly one of the two is given"
    share = WHOLE if compute.shard is None else Shard.parse(compute.shard)
    options = EmbedOptions(
        images_root=images_root,
        shard=share,
        engine=compute.engine,
        device=place,
        precision=compute.precision,
    )
    with progress_bar(visible=not as_json) as advance:
        done = embed_items(Bundle(bundle), items, out, options, progress=advance)
    if as_json:
        print_json({"rows": done.n_items, "failed": done.failures, "files": done.files})
        return
    for line in done.lines():
        console.print(f"  {line}", highlight=False)
    console.print(f"{done.n_items:,} of {done.n_rows:,} items embedded in {out}")
