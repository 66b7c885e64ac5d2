"""Recommend items that go with those of the user: item-kNN and EASE."""

from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Bools, Floats, Ints
from recsys.data.interactions import Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines.contract import require_fitted, require_known, require_past


class ItemKNN:
    """Scores a candidate by the cosines of its nearest items, summed over those the user has.

    This is the item-based collaborative filtering of Deshpande and Karypis (2004) on binary data.
    It uses the neighbours of the candidate: those of the user's items would favour popular
    candidates.

    Args:
        n_neighbours: Number of neighbours of each candidate.
        shrinkage: Number of users added to the denominator; see ``cosine_neighbours``.
    """

    def __init__(self, n_neighbours: int = 20, *, shrinkage: float = 10.0) -> None:
        if n_neighbours < 1:
            raise InvalidArgumentError(f"n_neighbours must be at least 1, got {n_neighbours}")
        if shrinkage < 0:
            raise InvalidArgumentError(f"shrinkage must be at least 0, got {shrinkage}")
        self.name = f"item-kNN (k = {n_neighbours})"
        self._n_neighbours = n_neighbours
        self._shrinkage = shrinkage
        self._fitted: _Fitted | None = None

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Find the neighbours of every item; see ``Baseline.fit``."""
        require_past(interactions, now_us)
        learned = interactions.without_users(held_out).matrix()
        neighbours = cosine_neighbours(
            learned, n_neighbours=self._n_neighbours, shrinkage=self._shrinkage
        )
        self._fitted = _Fitted(interactions.matrix(), neighbours.T.tocsr())
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return the sum of similarities to the user's items; see ``Baseline.scores``."""
        fitted = require_fitted(self._fitted, self.name)
        require_known(user_rows, fitted.matrix.shape[0])
        scores: Floats = (fitted.matrix[user_rows] @ fitted.weights).toarray()
        return scores


class EASE:
    """The linear autoencoder with a zero diagonal of Steck (2019).

    The paper is https://arxiv.org/abs/1905.03375. Only items with events are in the inversion,
    since other items would get zero weights.

    Args:
        ridge: Regularisation in numbers of users, the paper's lambda.
        max_items: Largest number of items with events that ``fit`` accepts. Time grows with their
            cube, memory with their square (3 GB at 10,000).
    """

    def __init__(self, ridge: float = 200.0, *, max_items: int = 10_000) -> None:
        if ridge <= 0:
            raise InvalidArgumentError(f"ridge must be above 0, got {ridge}")
        self.name = f"EASE (λ = {ridge:g})"
        self._ridge = ridge
        self._max_items = max_items
        self._fitted: _Fitted | None = None
        self._known: Ints = np.empty(0, dtype=np.int64)
        self._n_items = 0

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Solve for the item weights; see ``Baseline.fit``.

        Raises:
            LeakageError: If an event is at or after ``now_us``.
            InvalidArgumentError: If more than ``max_items`` items have events.
        """
        require_past(interactions, now_us)
        learned = interactions.without_users(held_out)
        known = np.unique(learned.item_rows)
        if len(known) > self._max_items:
            raise InvalidArgumentError(
                f"EASE must have at most max_items = {self._max_items} items with events, got "
                f"{len(known)}; leave it out or raise max_items"
            )
        weights = ease_weights(learned.matrix()[:, known], ridge=self._ridge)
        self._fitted = _Fitted(interactions.matrix()[:, known], weights)
        self._known, self._n_items = known, interactions.n_items
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return the sum of the weights over the user's items; see ``Baseline.scores``."""
        fitted = require_fitted(self._fitted, self.name)
        require_known(user_rows, fitted.matrix.shape[0])
        scores = np.zeros((len(user_rows), self._n_items), dtype=np.float32)
        scores[:, self._known] = fitted.matrix[user_rows] @ fitted.weights
        return scores


class _Fitted(NamedTuple):
    matrix: "sparse.csr_matrix"  # 1.0 for each item that a user has (U, n)
    weights: "sparse.csr_matrix | Floats"  # user's item in rows, candidate in columns (n, n)


def cosine_neighbours(
    matrix: "sparse.csr_matrix",
    *,
    n_neighbours: int,
    shrinkage: float = 0.0,
    items_at_once: int = 1_024,
) -> "sparse.csr_matrix":
    """Return each item's nearest items, float32 (N, N); a row's columns are its neighbours.

    The similarity is the cosine ``common / (sqrt(a * b) + shrinkage)``, where ``a``, ``b`` and
    ``common`` are numbers of users. Without shrinkage, items with few users would be near each
    other by chance.

    Args:
        matrix: 1.0 for each item that a user has, (U, N).
        n_neighbours: Largest number of neighbours kept for each item.
        shrinkage: Number of users added to the denominator.
        items_at_once: Items whose similarities are held in memory together.
    """
    n_items = matrix.shape[1]
    by_item = matrix.T.tocsr()
    norms = np.sqrt(by_item.getnnz(axis=1)).astype(np.float32)
    kept = min(n_neighbours, n_items)
    blocks = []
    for start in range(0, n_items, items_at_once):
        common = (by_item[start : start + items_at_once] @ matrix).tocsr()  # users of both
        items = np.repeat(np.arange(start, start + common.shape[0]), np.diff(common.indptr))
        values = common.data / (norms[items] * norms[common.indices] + np.float32(shrinkage))
        values[items == common.indices] = 0.0  # an item is not its own neighbour
        for first, end in pairwise(common.indptr.tolist()):
            if end - first > kept:
                order = np.argpartition(-values[first:end], kept - 1)
                values[first + order[kept:]] = 0.0
        common.data = values
        common.eliminate_zeros()
        blocks.append(common)
    return sparse.vstack(blocks, format="csr")


def ease_weights(
    matrix: "sparse.csr_matrix", *, ridge: float, items_at_once: int = 1_024
) -> Floats:
    """Return EASE's item weights, float32 (N, N); scores are ``matrix @ weights``.

    Rows are items that the user has, columns are candidates, and the diagonal is zero. With
    ``P = (X'X + ridge * I)^-1`` the weight is ``-P[i, j] / P[j, j]``.

    Args:
        matrix: 1.0 for each item that a user has, (U, N).
        ridge: Regularisation above 0, in numbers of users.
        items_at_once: Items whose numbers of common users are counted together.
    """
    n_items, by_item = matrix.shape[1], matrix.T.tocsr()
    gram = torch.empty(n_items, n_items, dtype=torch.float64)
    for start in range(
        0, n_items, items_at_once
    ):  # almost all of it has numbers, so sparse is large
        some = (by_item[start : start + items_at_once] @ matrix).toarray()
        gram[start : start + items_at_once] = torch.from_numpy(some)
    gram.diagonal().add_(ridge)
    gram = torch.linalg.cholesky(gram)
    precision = torch.cholesky_inverse(gram)
    del gram
    precision.div_(precision.diagonal().clone()).neg_()  # divides column j by P[j, j]
    precision.fill_diagonal_(0.0)
    return precision.to(torch.float32).numpy()


def strongest_entries(matrix: "sparse.csr_matrix", count: int) -> tuple[NDArray[np.int32], Floats]:
    """Return the columns and values (N, K) of the largest entries of each row, padded."""
    lengths = np.diff(matrix.indptr)
    count = max(1, min(count, int(lengths.max(initial=0))))
    rows = np.repeat(np.arange(matrix.shape[0]), lengths)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    places = np.arange(len(rows)) - np.repeat(matrix.indptr[:-1], lengths)
    kept = places < count
    columns = np.full((matrix.shape[0], count), -1, dtype=np.int32)
    values = np.zeros((matrix.shape[0], count), dtype=np.float32)
    columns[rows[kept], places[kept]] = matrix.indices[order][kept]
    values[rows[kept], places[kept]] = matrix.data[order][kept]
    return columns, values
