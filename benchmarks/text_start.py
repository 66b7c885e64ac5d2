"""Compare a new text encoder with all-MiniLM-L6-v2, as ``[text] checkpoint = "auto"`` does.

Run from the repository's root, with the extra ``weights``, after ``recsys demo`` has written its
shop to ``out/demo``: ``python -m benchmarks.text_start``, or with names to measure some sets alone:
"shop", or those of ``benchmarks.defaults``. Only titles, categories and events are read.
"""

import sys
from pathlib import Path

import polars as pl

from benchmarks.defaults import SHOP, tables_of
from benchmarks.record import record
from recsys.config import TrainConfig
from recsys.data.tables import Tables
from recsys.pipeline import load_tables
from recsys.training.inputs import read_shop
from recsys.training.stages import Runtime, Workspace
from recsys.training.text_start import decide_text_start
from text.config import AUTO, TextConfig
from text.networks.start import NEW, Start

COMMAND = "python -m benchmarks.text_start"
OUT, DEMO = Path("out/text-start"), Path("out/demo/shop")


def compare(name: str) -> Start:
    """Return what is chosen on a set, and the figures of both encoders."""
    folder = DEMO if name == SHOP else tables_of(name)
    tables = Tables(
        items=pl.read_parquet(folder / "items.parquet").drop("image", strict=False),
        events=pl.read_parquet(folder / "events.parquet"),
    )
    config = TrainConfig(name=name, text=TextConfig(checkpoint=AUTO))
    shop = read_shop(load_tables(config, tables), config)
    workspace = Workspace(OUT / name, announce=lambda stage: print(f"{name}: {stage}", flush=True))
    compared = decide_text_start(shop, config.text, Runtime(workspace, "cpu")).compared
    if compared is None:
        sys.exit("the weights must be installed: pip install 'vitrine-recsys[weights]'")
    return compared


def main() -> None:
    """Compare on each set, print the choice and record the figures."""
    for name in sys.argv[1:] or (SHOP, "online_retail"):
        compared = compare(name)
        print(f"{name}: {compared.sentence()}", flush=True)
        for encoder, figures in compared.figures.items():
            short = "new" if encoder == NEW else "published"
            for kind, value in figures.items():
                record("text_start", f"text_start.{name}.{short}.{kind}", value, "share", COMMAND)


if __name__ == "__main__":
    main()
