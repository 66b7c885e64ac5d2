"""Embed whole tables into the item space, in bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.data.dataset import load_dataset
from recsys.embedding import ItemEmbedder, item_texts

BATCH_ROWS = 1_024


def embedder_of(bundle: Bundle) -> ItemEmbedder:
    """Return the bundle's towers and fusion as one."""
    vision = bundle.vision if "vision" in bundle.parts else None
    text = bundle.text if "text" in bundle.parts else None
    return ItemEmbedder(vision, text, bundle.fusion)
