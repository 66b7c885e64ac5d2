"""Nearest-neighbour search under a mask: exact, or by a graph where the catalogue is large."""

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from usearch.index import Index

from recsys.catalogue.store import Catalogue
from recsys.errors import InvalidArgumentError

# A catalogue, or what a filter leaves of one, is searched exactly up to this size. What either way
# costs is measured by ``python -m benchmarks.search``.
EXACT_UP_TO = 20_000
# Gathering a row costs more than comparing it; of few rows it is worth it.
_GATHER_BELOW = 0.2

# Links of an item in the graph, and how many candidates are kept while linking and while searching.
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 32, 128, 128
_SPARE = 2.0  # items that pass a filter are not spread evenly


class Nearest(NamedTuple):
    """Rows (K,) and scores (K,), best first; fewer than asked where fewer may be answered."""

    rows: Tensor
    scores: Tensor


class VectorIndex(Protocol):
    """Finds the items of a live catalogue that are nearest to a vector."""

    def nearest(self, query: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the ``k`` rows with the highest dot product among those allowed.

        Args:
            query: One query (D,).
            mask: Which rows may be answered (N,).
            k: How many; as many come back as the mask allows.
        """
        ...

    def update(self, rows: Iterable[int]) -> None:
        """Follow the catalogue, where items at some rows were added, replaced or deleted."""
        ...


class ExactIndex:
    """Compares a query with every item: one matrix-vector product on the catalogue's device."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def nearest(self, query: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the best rows, as ``VectorIndex.nearest``; ties by row."""
        return nearest_rows(query, self._catalogue.embeddings, mask, k)

    def update(self, rows: Iterable[int]) -> None:
        """Do nothing: the catalogue's own embeddings are read."""


class ApproximateIndex:
    """Walks a graph of near items: HNSW (Malkov & Yashunin, 2018), in half precision, on the CPU.

    The graph (https://arxiv.org/abs/1603.09320) is usearch's. What it finds is scored again in full
    precision. Where a filter leaves few items, or fewer than ``k`` of those found, the search is
    exact.

    Args:
        catalogue: Items; all are linked at once.
        exact_up_to: How many allowed items are compared one by one.
    """

    def __init__(self, catalogue: Catalogue, *, exact_up_to: int = EXACT_UP_TO) -> None:
        self._catalogue = catalogue
        self._exact_up_to = exact_up_to
        self._graph = Index(
            ndim=catalogue.dim,
            metric="ip",
            dtype="f16",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        self.update(range(len(catalogue)))

    def nearest(self, query: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the best rows that were found, as ``VectorIndex.nearest``."""
        embeddings = self._catalogue.embeddings
        n_allowed = int(mask.sum())
        if n_allowed > max(self._exact_up_to, k):
            wanted = math.ceil(_SPARE * k * len(mask) / n_allowed)
            found = self._graph.search(query.cpu().numpy(), wanted, threads=1).keys
            rows = found[mask[found]].astype(np.int64)
            if len(rows) >= k:
                ordered = torch.from_numpy(np.sort(rows))
                return best_rows(ordered, _dot(query, embeddings, ordered), k)
        return nearest_rows(query, embeddings, mask, k)

    def update(self, rows: Iterable[int]) -> None:
        """Link items as they are now, and unlink those that are gone or have no embedding."""
        rows = np.fromiter(rows, dtype=np.int64)
        linked = rows[self._graph.contains(rows)] if len(self._graph) else rows[:0]
        if len(linked):
            self._graph.remove(linked)
        there = rows[self._catalogue.embedded[rows]]
        if len(there):
            self._graph.add(there, self._catalogue.embeddings[there].cpu().numpy())


def build_index(catalogue: Catalogue, *, exact_up_to: int = EXACT_UP_TO) -> VectorIndex:
    """Return the index for a catalogue: exact up to a size, and on an accelerator of any size."""
    if catalogue.device != "cpu" or len(catalogue) <= exact_up_to:
        return ExactIndex(catalogue)
    return ApproximateIndex(catalogue, exact_up_to=exact_up_to)


def nearest_rows(query: Tensor, embeddings: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
    """Return the ``k`` rows with the highest dot product among those allowed; ties by row.

    Args:
        query: One query (D,).
        embeddings: Item embeddings (N, D).
        mask: Which rows may be answered (N,).
        k: How many.

    Raises:
        InvalidArgumentError: If the shapes disagree.
    """
    if query.shape != embeddings.shape[1:] or mask.shape != embeddings.shape[:1]:
        raise InvalidArgumentError(
            f"query, embeddings and mask must have shapes (D,), (N, D), (N,), got "
            f"{tuple(query.shape)}, {tuple(embeddings.shape)}, {mask.shape}"
        )
    allowed = torch.from_numpy(np.flatnonzero(mask)).to(embeddings.device)
    return best_rows(allowed, _dot(query, embeddings, allowed), k)


def best_rows(rows: Tensor, scores: Tensor, k: int) -> Nearest:
    """Return the ``k`` rows with the highest scores; ties in the order given.

    Args:
        rows: Rows (C,).
        scores: Their scores (C,).
        k: How many.
    """
    if k < len(rows):  # sorting all of them would take longer than comparing them
        kept = scores >= scores.topk(k).values[-1]
        rows, scores = rows[kept], scores[kept]
    order = scores.argsort(descending=True, stable=True)[:k]
    return Nearest(rows[order], scores[order])


def _dot(query: Tensor, embeddings: Tensor, rows: Tensor) -> Tensor:
    """Return the dot products of some rows (C,), in whichever order is faster."""
    if _GATHER_BELOW * len(embeddings) > len(rows):
        return embeddings.index_select(0, rows) @ query
    return (embeddings @ query)[rows]
