"""Exact nearest-neighbour search on the device, under a mask."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Nearest(NamedTuple):
    """Rows (K,) and scores (K,), best first; fewer than asked where fewer may be answered."""

    rows: Tensor
    scores: Tensor


def nearest_rows(query: Tensor, embeddings: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
    """Return the ``k`` rows with the highest dot product among those allowed; ties by row.

    Exact search is right and simple below some millions of rows: one matrix-vector product.

    Args:
        query: One query (D,).
        embeddings: Item embeddings (N, D).
        mask: Which rows may be answered (N,).
        k: How many.

    Raises:
        ValueError: If the shapes disagree.
    """
    if query.shape != embeddings.shape[1:] or mask.shape != embeddings.shape[:1]:
        raise ValueError(
            f"query, embeddings and mask must have shapes (D,), (N, D), (N,), got "
            f"{tuple(query.shape)}, {tuple(embeddings.shape)}, {mask.shape}"
        )
    allowed = torch.from_numpy(np.flatnonzero(mask)).to(embeddings.device)
    scores = (embeddings @ query)[allowed]
    order = scores.argsort(descending=True, stable=True)[:k]
    return Nearest(allowed[order], scores[order])
