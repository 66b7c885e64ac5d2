"""Generate shops of several sizes, and train on them quickly, once.

Benchmarks of ranking share these shops: they compare answers and speeds, so the training is short
and its quality does not matter. A shop lies in ``out/sized/N``, and the next benchmark finds its
bundle there. Remove the folder to train again.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.generated_logs import LogSpec, write_log
from recsys import Bundle
from recsys.config import (
    DataConfig,
    EvaluationConfig,
    FusionConfig,
    RankerConfig,
    SplitConfig,
    TrainConfig,
    TreesConfig,
    UserConfig,
)
from recsys.pipeline import train
from text.config import TextConfig

OUT = Path("out/sized")


class ShopSize(NamedTuple):
    """Number of a shop's users, what ranks in it, and the size of its item embeddings."""

    n_users: int
    ranker: Literal["trees", "network"]
    dim: int


# By the number of items.
SHOPS = {
    500: ShopSize(2_000, "trees", 256),
    4_000: ShopSize(10_000, "network", 256),
    20_000: ShopSize(2_000, "trees", 64),
}


def spec_of(n_items: int) -> LogSpec:
    """Return a log of two years in which people come a few times and repeat some purchases."""
    return LogSpec("purchase", SHOPS[n_items].n_users, n_items, 730, (2, 8), 700.0, 3.0, 300.0, 0.3)


def config_of(n_items: int) -> TrainConfig:
    """Return a short training on the tables of a shop, which are made if need be."""
    folder = (OUT / str(n_items) / "tables").resolve()
    if not (folder / "events.parquet").exists():
        write_log(spec_of(n_items), folder, np.random.default_rng(n_items))
    return TrainConfig(
        name=f"{n_items} items",
        data=DataConfig(items=f"{folder}/items.parquet", events=f"{folder}/events.parquet"),
        split=SplitConfig(protocol="time", horizon="2mo", n_cuts=2),
        text=TextConfig(epochs=1),
        fusion=FusionConfig(epochs=1, dim=SHOPS[n_items].dim),
        users=UserConfig(epochs=1, histories_per_user=1),
        ranker=RankerConfig(
            kind=SHOPS[n_items].ranker, n_queries=200, epochs=4, trees=TreesConfig(trees=50)
        ),
        evaluation=EvaluationConfig(ablations=False),
    )


def bundle_of(n_items: int) -> Bundle:
    """Return the bundle of a shop; stages that are done already are not done again."""
    run = train(config_of(n_items), OUT / str(n_items) / "run")
    return Bundle(run.bundle)
