"""The command that chooses which photos to label next."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from recsys.cli.options import BundlePath, Config, Json, check_suffix, with_options
from recsys.cli.output import console, print_json
from recsys.cli.vision.inputs import Target, finest, load_samples, load_tower, required
from recsys.data.files import whole_file

if TYPE_CHECKING:
    from vision.labelling.selection import Strategy


@dataclass(frozen=True)
class Criterion:
    """How photos are chosen."""

    strategy: Annotated[
        str, typer.Option(help="Way to choose: entropy, margin, core_set or random.")
    ] = "margin"
    target: Target = None
    seed: Annotated[int, typer.Option(help="Random seed of the strategy random.")] = 0


@with_options
def select(
    bundle: BundlePath,
    config: Config,
    k: Annotated[int, typer.Option("-k", "--k", help="Number of photos to choose.")],
    out: Annotated[
        Path, typer.Option(help="File to write the chosen photos to: .parquet or .csv.")
    ],
    criterion: Criterion,
    as_json: Json = False,
) -> None:
    """Choose the photos without a label that are most useful to label, the best first."""
    from recsys.config import load_config
    from recsys.data.spreadsheets import mark_formulas
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
        # The function lists the known strategies in its error.
        strategy=cast("Strategy", criterion.strategy),
        target=criterion.target or finest(tower.classes),
        seed=criterion.seed,
    )
    table = chosen.table
    write = table.write_parquet if out.suffix == ".parquet" else mark_formulas(table).write_csv
    with whole_file(out) as scratch:
        write(scratch)
    if as_json:
        print_json({"rows": len(chosen.table), "unlabelled": len(pool), "file": out})
        return
    console.print(f"{len(chosen.table):,} of {len(pool):,} photos without a label in {out}")
