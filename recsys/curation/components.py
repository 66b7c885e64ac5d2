"""Connected components: of links between rows, and of the vectors that are near each other."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from recsys.data.arrays import Floats, Ints


def near_components(vectors: Floats, min_cosine: float, *, rows_at_once: int = 256) -> Ints:
    """Return the first row of the connected component of each vector (n,).

    Two vectors are linked if their cosine is at least ``min_cosine``. A component is everything
    that links connect, so two of its vectors may be less alike than that.

    Args:
        vectors: Vectors of unit length (n, D).
        min_cosine: Lowest cosine of a linked pair.
        rows_at_once: Rows that are compared with all later rows in one step; bounds the memory.
    """
    first: Ints = np.arange(len(vectors))
    for start in range(0, len(vectors), rows_at_once):
        block = slice(start, start + rows_at_once)
        near = vectors[block] @ vectors[start:].T >= min_cosine
        # A pair that is connected already needs no link: a block of similar vectors has millions.
        left, right = np.nonzero(near & (first[block][:, None] != first[start:]))
        links = (first[block][left], first[start:][right])
        first = first_connected(len(vectors), [links])[first]
    return first


def first_connected(n_rows: int, links: Sequence[tuple[Ints, Ints]]) -> Ints:
    """Return the first row of the connected component of each row (n_rows,).

    Args:
        n_rows: Number of rows.
        links: Pairs of arrays of equal length; row ``left[i]`` is linked to row ``right[i]``.
    """
    left = np.concatenate([one for one, _ in links])
    right = np.concatenate([other for _, other in links])
    graph = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(n_rows, n_rows))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return np.asarray(first[component], dtype=np.int64)


def members(first: Ints) -> list[Ints]:
    """Return the rows of each component of two or more rows, in the order of their first rows.

    Args:
        first: First row of the component of each row (n,).
    """
    order = np.argsort(first, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    return [group for group in groups if len(group) > 1]
