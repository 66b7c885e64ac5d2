"""Hide products of Online Retail from training, and rank them for those who will buy them.

Run from the repository's root: ``python -m benchmarks.online_retail_cold``. A fifth of the
products, drawn at random, lose all events before the split, and keep title and price. For each
customer of the following month these products are ranked, and Recall@20 is recorded beside that of
a random order and of text-kNN: the cosine of a product's title with the mean of the titles that
the customer bought, by the same text encoder. Popularity of the category is missing: Online Retail
has no categories.
"""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import metric
from recsys.bundle import Bundle
from recsys.config import TrainConfig, load_config
from recsys.data.arrays import Floats, Ints
from recsys.data.tables import Tables
from recsys.evaluation.systems import OURS, System, bundle_split, rank_systems
from recsys.pipeline import train

COMMAND = "python -m benchmarks.online_retail_cold"
CONFIG, OUT = Path("configs/online_retail.toml"), Path("out/online-retail-cold")
HIDDEN_SHARE, SEED = 0.2, 0


def hide(items: pl.DataFrame, events: pl.DataFrame, split: datetime) -> Tables:
    """Return the tables without the earlier events of a fifth of the items.

    The hidden items are on offer from before the first event on, so that they are ranked.

    Args:
        items: Items of the shop.
        events: Events of the shop.
        split: Moment before which the hidden items have no events.
    """
    hidden = items["item_id"].sort().sample(fraction=HIDDEN_SHARE, seed=SEED)
    offered_since = events["timestamp"].min()
    assert isinstance(offered_since, datetime), "the shop has events"
    since = pl.lit(offered_since - timedelta(days=1), dtype=items.schema["created_at"])
    is_hidden = pl.col("item_id").is_in(hidden.implode())
    return Tables(
        items.with_columns(
            pl.when(is_hidden).then(since).otherwise("created_at").alias("created_at")
        ),
        events.filter(~(is_hidden & (pl.col("timestamp") < split))),
    )


def text_knn(bundle: Bundle) -> System:
    """Return the scores by titles alone."""
    titles = bundle.text.embed([title or "" for title in bundle.items["title"]])
    taken = bundle_split(bundle).train.of_kinds(bundle.target_kinds).matrix()

    def scores(user_rows: Ints) -> Floats:
        return np.asarray((taken[user_rows] @ titles) @ titles.T, dtype=np.float32)

    return System("baseline", "text-kNN", scores)


def random_order(bundle: Bundle) -> System:
    """Return scores that know nothing, of each user's own."""

    def scores(user_rows: Ints) -> Floats:
        shape = len(bundle.items)
        rows = [np.random.default_rng([SEED, user]).random(shape) for user in user_rows.tolist()]
        return np.array(rows, dtype=np.float32)

    return System("baseline", "random", scores)


def configured() -> TrainConfig:
    """Return the configuration without its tables, which are passed."""
    config = load_config(CONFIG)
    data = config.data.model_copy(update={"items": None, "events": None})
    return config.model_copy(update={"data": data})


def main() -> None:
    """Train, print the table and record the figures."""
    folder = imported("online-retail", "online-retail.csv.gz")
    config = configured()
    assert config.split.at is not None, "the configuration names the moment of the split"
    items, events = (pl.read_parquet(folder / f"{name}.parquet") for name in ("items", "events"))
    run = train(
        config, OUT, tables=hide(items, events, config.split.at), announce=lambda name: print(name)
    )
    bundle = Bundle(run.bundle)
    ranked = rank_systems(bundle, [text_knn(bundle), random_order(bundle)], scopes=("cold",))
    (found,) = ranked.tables
    names = {OURS: "cold", "text-kNN": "cold.text_knn", "random": "cold.random"}
    for row in found.systems:
        print(row.name, row.metrics["recall@20"], row.metrics["ndcg@10"], flush=True)
    for system, name in names.items():
        for key in ("recall@20", "ndcg@10"):
            value = metric(found, system, key).mean
            record("online_retail", f"online_retail.{name}.{key}", round(value, 4), key, COMMAND)


if __name__ == "__main__":
    main()
