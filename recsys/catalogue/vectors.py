"""Nearest-neighbour search under a mask: exact, or with a graph for a large catalogue."""

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

# Up to this many items, or items that pass a filter, search is exact. ``python -m
# benchmarks.search`` measures the cost of both ways.
EXACT_UP_TO = 20_000
# Gathering a row costs more than comparing it, so it pays only below this share of the rows.
_GATHER_BELOW = 0.2

# Links of an item in the graph, and candidates kept while linking and while searching.
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 32, 128, 128
_SPARE = 2.0  # search for more than needed: items that pass a filter are not spread evenly


class Nearest(NamedTuple):
    """Rows (K,) and scores (K,), best first; K may be less than the number wanted."""

    rows: Tensor
    scores: Tensor


class VectorIndex(Protocol):
    """Finds the items of a live catalogue that are nearest to a vector."""

    def nearest(self, query: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the ``k`` rows with the highest dot product, among the rows of the mask.

        Args:
            query: Vector to compare with (D,).
            mask: Rows that may be returned, bool (N,).
            k: Maximum number of results.
        """
        ...

    def update(self, rows: Iterable[int]) -> None:
        """Follow the catalogue after items at these rows were added, replaced or deleted."""
        ...


class ExactIndex:
    """Compares a query with every item by one matrix-vector product on the catalogue's device.

    Args:
        catalogue: Catalogue to search.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def nearest(self, query: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
        """Return the best rows, as ``VectorIndex.nearest`` does; ties are in row order."""
        return nearest_rows(query, self._catalogue.embeddings, mask, k)

    def update(self, rows: Iterable[int]) -> None:
        """Do nothing, since every search reads the catalogue's current embeddings."""


class ApproximateIndex:
    """Searches a graph of near items on the CPU, in half precision.

    The graph is HNSW (Malkov & Yashunin, 2018, https://arxiv.org/abs/1603.09320), by usearch. The
    items found are scored again in full precision. Search is exact if a filter leaves few items,
    or if fewer than ``k`` of the items found pass it.

    Args:
        catalogue: Catalogue to search; the graph is built here, from all of its items.
        exact_up_to: Largest number of allowed items for exact search.
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
        """Return the best rows that the graph finds, as ``VectorIndex.nearest`` does."""
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
        """Link items as they are now, and unlink those without an embedding or deleted."""
        rows = np.fromiter(rows, dtype=np.int64)
        linked = rows[self._graph.contains(rows)] if len(self._graph) else rows[:0]
        if len(linked):
            self._graph.remove(linked)
        there = rows[self._catalogue.embedded[rows]]
        if len(there):
            self._graph.add(there, self._catalogue.embeddings[there].cpu().numpy())


def build_index(catalogue: Catalogue, *, exact_up_to: int = EXACT_UP_TO) -> VectorIndex:
    """Return an exact index for a small catalogue or one on an accelerator, else a graph."""
    if catalogue.device != "cpu" or len(catalogue) <= exact_up_to:
        return ExactIndex(catalogue)
    return ApproximateIndex(catalogue, exact_up_to=exact_up_to)


def nearest_rows(query: Tensor, embeddings: Tensor, mask: NDArray[np.bool_], k: int) -> Nearest:
    """Return the ``k`` rows with the highest dot product, among the rows of the mask.

    Ties are in row order.

    Args:
        query: Vector to compare with (D,).
        embeddings: Item embeddings (N, D).
        mask: Rows that may be returned, bool (N,).
        k: Maximum number of results.

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
    """Return the ``k`` rows with the highest scores; ties keep their order.

    Args:
        rows: Candidate rows (C,).
        scores: Score of each candidate (C,).
        k: Maximum number of results.
    """
    if k < len(rows):  # sorting all rows would take longer than dropping most of them first
        kept = scores >= scores.topk(k).values[-1]
        rows, scores = rows[kept], scores[kept]
    order = scores.argsort(descending=True, stable=True)[:k]
    return Nearest(rows[order], scores[order])


def _dot(query: Tensor, embeddings: Tensor, rows: Tensor) -> Tensor:
    """Return the dot products of these rows with the query (C,), in the faster order."""
    if _GATHER_BELOW * len(embeddings) > len(rows):
        return embeddings.index_select(0, rows) @ query
    return (embeddings @ query)[rows]
