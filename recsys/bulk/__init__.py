"""Embed tables of any size, or a file of texts, into the item space, and write it to Parquet."""

from recsys.bulk.items import Embedded, EmbedOptions, embed_items
from recsys.bulk.parts import Shard
from recsys.bulk.texts import embed_texts

__all__ = ["EmbedOptions", "Embedded", "Shard", "embed_items", "embed_texts"]
