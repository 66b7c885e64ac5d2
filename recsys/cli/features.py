"""The features command."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from recsys.cli.options import BundlePath, Json, with_options
from recsys.cli.output import console, print_json, progress_bar


@dataclass(frozen=True)
class Share:
    """Which share of the pairs is worked on, and where."""

    shard: Annotated[
        str | None,
        typer.Option(help="Share of the pairs as i/n, with i from 0 to n - 1."),
    ] = None
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where to compute: this machine or a Ray cluster."),
    ] = "local"
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Device that features are computed on.")
    ] = "cpu"


@with_options
def features(
    bundle: BundlePath,
    pairs: Annotated[
        Path, typer.Option(help="Table of user_id, item_id and, optionally, timestamp, or a glob.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write Parquet parts to, or one file that ends in .parquet."),
    ],
    share: Share,
    events: Annotated[
        Path | None, typer.Option(help="Events table of the histories; the bundle's if unset.")
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(help="Time in UTC up to which items are known; the last event's if unset."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what the rankers read of pairs; run it again to continue where it stopped."""
    from recsys import Bundle
    from recsys.bulk import FeatureOptions, Shard, build_features
    from recsys.bulk.parts import WHOLE
    from vision.device import resolve_device

    options = FeatureOptions(
        events=events,
        # The option has no zone, and is UTC wherever the command runs.
        as_of=as_of.replace(tzinfo=UTC) if as_of is not None and as_of.tzinfo is None else as_of,
        shard=WHOLE if share.shard is None else Shard.parse(share.shard),
        engine=share.engine,
        device=str(resolve_device(share.device)),
    )
    with progress_bar(visible=not as_json) as advance:
        done = build_features(Bundle(bundle), pairs, out, options, progress=advance)
    if as_json:
        print_json({"rows": done.n_pairs, "failed": done.failures, "files": done.files})
        return
    for line in done.lines():
        console.print(f"  {line}", highlight=False)
    console.print(f"features of {done.n_pairs:,} of {done.n_rows:,} pairs in {out}")
