"""Baseline recommenders under one contract: opponents of the model, and source of its features."""

from recsys.ranking.baselines.content import ContentKNN
from recsys.ranking.baselines.contract import Baseline
from recsys.ranking.baselines.factors import IALS
from recsys.ranking.baselines.neighbours import (
    EASE,
    ItemKNN,
    cosine_neighbours,
    ease_weights,
    strongest_entries,
)
from recsys.ranking.baselines.own_purchases import OwnPurchases
from recsys.ranking.baselines.popularity import Popularity, RecentPopularity, distinct_users

__all__ = [
    "EASE",
    "IALS",
    "Baseline",
    "ContentKNN",
    "ItemKNN",
    "OwnPurchases",
    "Popularity",
    "RecentPopularity",
    "cosine_neighbours",
    "distinct_users",
    "ease_weights",
    "strongest_entries",
]
