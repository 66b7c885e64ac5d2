"""The recommenders that every result stands beside, under one contract."""

from recsys.models.baselines.contract import Baseline
from recsys.models.baselines.factors import IALS
from recsys.models.baselines.neighbours import EASE, ItemKNN, cosine_neighbours, ease_weights
from recsys.models.baselines.own_purchases import OwnPurchases
from recsys.models.baselines.popularity import Popularity, RecentPopularity

__all__ = [
    "EASE",
    "IALS",
    "Baseline",
    "ItemKNN",
    "OwnPurchases",
    "Popularity",
    "RecentPopularity",
    "cosine_neighbours",
    "ease_weights",
]
