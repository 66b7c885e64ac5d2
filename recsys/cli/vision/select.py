"""The command that selects the photos to label next."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from recsys.cli.options import BundlePath, Config, Json, check_suffix
from recsys.cli.output import console, print_json
from recsys.cli.vision.inputs import Target, finest, load_samples, load_tower, required
from recsys.data.files import whole_file

if TYPE_CHECKING:
    from vision.labelling.selection import Strategy


def select(
    bundle: BundlePath,
    config: Config,
    k: Annotated[int, typer.Option("-k", "--k", help="Number of photos.")],
    out: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")],
    strategy: Annotated[
        str, typer.Option(help="Strategy: entropy, margin, core_set or random.")
    ] = "margin",
    target: Target = None,
    seed: Annotated[int, typer.Option(help="Random seed of the strategy random.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the unlabelled photos that are most useful to label next, the best first."""
    from recsys.config import load_config
    from vision.labelling.selection import Pool
    from vision.labelling.selection import select as run

    check_suffix(out, ".parquet", ".csv")
    settings = load_config(config)
    tower = load_tower(bundle, settings)
    samples = load_samples(settings, progress=not as_json)
    pool = required(samples.unlabelled, config, "photos of train without item_id and category")
    chosen = run(
        tower,
        Pool(pool, labelled=samples.train.images),
        k,
        strategy=cast("Strategy", strategy),  # vision.labelling refuses an unknown one
        target=target or finest(tower.classes),
        seed=seed,
    )
    write = chosen.table.write_parquet if out.suffix == ".parquet" else chosen.table.write_csv
    with whole_file(out) as scratch:
        write(scratch)
    if as_json:
        print_json({"rows": len(chosen.table), "unlabelled": len(pool), "file": out})
        return
    console.print(f"{len(chosen.table):,} of {len(pool):,} photos without a label in {out}")
