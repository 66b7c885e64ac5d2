"""Work on tables of any size, part by part: embed items or texts, build ranking features."""

from recsys.bulk.features import Featured, FeatureOptions, build_features
from recsys.bulk.items import Embedded, EmbedOptions, embed_items
from recsys.bulk.parts import Shard
from recsys.bulk.texts import embed_texts

__all__ = [
    "EmbedOptions",
    "Embedded",
    "FeatureOptions",
    "Featured",
    "Shard",
    "build_features",
    "embed_items",
    "embed_texts",
]
