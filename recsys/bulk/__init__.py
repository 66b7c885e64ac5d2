"""Embed item tables of any size, or files of texts, into the item space, as Parquet files."""

from recsys.bulk.items import Embedded, EmbedOptions, embed_items
from recsys.bulk.parts import Shard
from recsys.bulk.texts import embed_texts

__all__ = ["EmbedOptions", "Embedded", "Shard", "embed_items", "embed_texts"]
