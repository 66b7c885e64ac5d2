"""Bundles: what training leaves and serving reads, one immutable folder named by its hash."""

from recsys.bundle.contents import (
    Contents,
    RankingPart,
    ranking_settings,
    replace_ranking,
    replace_vision,
    write_bundle,
)
from recsys.bundle.reading import Bundle

__all__ = [
    "Bundle",
    "Contents",
    "RankingPart",
    "ranking_settings",
    "replace_ranking",
    "replace_vision",
    "write_bundle",
]
