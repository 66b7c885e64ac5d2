"""Events after those of a bundle, for runs that refresh it."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from recsys.bundle import Bundle
from recsys.recommender import Recommender


def copy_alone(bundle: Path, root: Path) -> Path:
    """Return a folder of bundles that has a copy of this one alone."""
    shutil.copytree(bundle, root / bundle.name)
    (root / "latest").symlink_to(bundle.name)
    return root


def repeat(events: pl.DataFrame, days: int) -> pl.DataFrame:
    """Return the events of the last days once more, as many days later."""
    shift = timedelta(days=days)
    last = events.filter(pl.col("timestamp") >= pl.col("timestamp").max() - shift)
    return last.with_columns(pl.col("timestamp") + shift)


def as_recommended(bundle: Bundle) -> pl.DataFrame:
    """Return a January in which all users take what the bundle recommends on its first day.

    Rankers that learned from more than the bundle did can then only be worse.
    """
    first = datetime(2026, 1, 1, tzinfo=UTC)
    users = bundle.events["user_id"].unique().sort()
    table = Recommender(bundle).recommend_many(users, k=5, now=first)
    return table.select(
        "user_id",
        "item_id",
        kind=pl.lit("purchase"),
        timestamp=first + pl.duration(days=29 + pl.col("rank") % 2),
        quantity=pl.lit(1.0),
        value=pl.lit(None, dtype=pl.Float64),
    )
