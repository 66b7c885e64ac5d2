"""Matrix factorisation of implicit feedback by alternating least squares."""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recsys.data.arrays import Bools, Floats, Ints
from recsys.data.interactions import Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines.contract import require_fitted, require_known, require_past

CONFIDENCE, RIDGE = 10.0, 10.0
_INITIAL_SIZE = 0.01  # standard deviation of the first item factors


class IALS:
    """Implicit alternating least squares of Hu, Koren and Volinsky (2008).

    The paper (https://doi.org/10.1109/ICDM.2008.22) minimises, over users u and items i,
    ``sum c_ui * (p_ui - x_u . y_i)^2 + ridge * (sum |x_u|^2 + sum |y_i|^2)``. For a pair with
    events ``p_ui`` is 1 and ``c_ui`` is ``confidence``; for any other pair ``p_ui`` is 0 and
    ``c_ui`` is 1. In the paper the confidence grows with the number of events.

    Args:
        n_factors: Size D of the factors.
        confidence: Weight of a pair with events; a pair without events weighs 1.
        ridge: Regularisation strength.
        n_sweeps: Number of times that users and items are solved for.
        seed: Random seed for the first item factors.
        cells_at_once: Padded matrix cells that are solved in one batch; bounds the memory.
        on_sweep: Called with the number of finished sweeps and their total.
    """

    def __init__(
        self,
        n_factors: int = 64,
        *,
        confidence: float = CONFIDENCE,
        ridge: float = RIDGE,
        n_sweeps: int = 15,
        seed: int = 0,
        cells_at_once: int = 50_000,
        on_sweep: Callable[[int, int], None] | None = None,
    ) -> None:
        if n_factors < 1 or n_sweeps < 1:
            raise InvalidArgumentError(
                f"n_factors and n_sweeps must be at least 1, got {n_factors} and {n_sweeps}"
            )
        if confidence < 1 or ridge <= 0:
            raise InvalidArgumentError(
                f"confidence must be at least 1 and ridge above 0, got {confidence} and {ridge}"
            )
        self.name = f"iALS ({n_factors} factors)"
        self._n_factors = n_factors
        self._confidence = confidence
        self._ridge = ridge
        self._n_sweeps = n_sweeps
        self._seed = seed
        self._cells_at_once = cells_at_once
        self._on_sweep = on_sweep
        self._factors: Factors | None = None

    @property
    def factors(self) -> "Factors":
        """User and item factors.

        Raises:
            RuntimeError: If the baseline is not fitted.
        """
        return require_fitted(self._factors, self.name)

    def fit(
        self, interactions: Interactions, *, now_us: int, held_out: Bools | None = None
    ) -> Self:
        """Alternate between users and items; see ``Baseline.fit``.

        Held-out users are solved for once, after the last sweep.
        """
        require_past(interactions, now_us)
        matrix = interactions.without_users(held_out).matrix()
        by_user = _batches(matrix, self._cells_at_once)
        by_item = _batches(matrix.T.tocsr(), self._cells_at_once)
        generator = torch.Generator().manual_seed(self._seed)
        shape = (interactions.n_items, self._n_factors)
        items = torch.randn(shape, generator=generator) * _INITIAL_SIZE
        # Zero factors are the least-squares solution for an item without events.
        items[torch.from_numpy(matrix.getnnz(axis=0) == 0)] = 0.0
        users = torch.zeros(interactions.n_users, self._n_factors)
        for sweep in range(self._n_sweeps):
            self._solve(users, items, by_user)
            self._solve(items, users, by_item)
            if self._on_sweep is not None:
                self._on_sweep(sweep + 1, self._n_sweeps)
        if held_out is not None:
            folded_in = interactions.without_users(~held_out).matrix()
            self._solve(users, items, _batches(folded_in, self._cells_at_once))
        self._factors = Factors(users.numpy(), items.numpy())
        return self

    def scores(self, user_rows: Ints) -> Floats:
        """Return the product of user and item factors; see ``Baseline.scores``."""
        users, items = self.factors
        require_known(user_rows, len(users))
        scores: Floats = users[user_rows] @ items.T
        return scores

    def _solve(self, unknown: Tensor, known: Tensor, batches: "list[_Batch]") -> None:
        """Write the least-squares solution into ``unknown`` (n, D), given ``known`` (m, D).

        A row with fewer pairs than factors is solved for its pairs, which has the same solution:
        with the Gram matrix G of all pairs and the met factors M, ``(G + w M'M)^-1 M'`` equals
        ``G^-1 M' (I + w M G^-1 M')^-1``.
        """
        ridge = self._ridge * torch.eye(self._n_factors)
        gram = known.T @ known + ridge  # all pairs as pairs without events
        scaled = torch.cholesky_solve(known.T, torch.linalg.cholesky(gram)).T.contiguous()  # (m, D)
        weight = self._confidence - 1.0
        for batch in batches:
            present = batch.present[..., None]
            met = known[batch.columns] * present  # (b, L, D)
            if met.shape[1] < self._n_factors:
                other = scaled[batch.columns] * present
                normal = torch.eye(met.shape[1]) + weight * (met @ other.mT)  # (b, L, L)
                pairs = torch.cholesky_solve(present, torch.linalg.cholesky(normal))
                solved = self._confidence * (other.mT @ pairs)  # (b, D, 1)
            else:
                right = self._confidence * met.sum(dim=1)  # (b, D)
                normal = gram + weight * (met.mT @ met)  # (b, D, D)
                solved = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(normal))
            unknown[batch.rows] = solved.squeeze(-1)


def fold_in(
    item_factors: Tensor,
    users: Tensor,
    rows: Tensor,
    n_users: int,
    *,
    gram: Tensor | None = None,
    confidence: float = CONFIDENCE,
    ridge: float = RIDGE,
) -> Tensor:
    """Return the factors (B, D) of users who were not fitted, from the items they have.

    This is the user's half of one sweep of :class:`IALS`; zero for a user without items.

    Args:
        item_factors: Fitted item factors (N, D).
        users: User of each pair, ascending, int64 (R,).
        rows: Item of each pair, distinct within a user, int64 (R,).
        n_users: Number of users B.
        gram: Products of all pairs of factors (D, D), where they are known already.
        confidence: As for :class:`IALS`.
        ridge: As for :class:`IALS`.
    """
    size = item_factors.shape[1]
    met = item_factors[rows]  # (R, D)
    identity = torch.eye(size, dtype=met.dtype, device=met.device)
    gram = (item_factors.T @ item_factors if gram is None else gram) + ridge * identity
    right = met.new_zeros(n_users, size).index_add_(0, users, met)
    outer = met.new_zeros(n_users, size, size)
    for user, part in enumerate(met.split(torch.bincount(users, minlength=n_users).tolist())):
        outer[user] = part.T @ part
    normal = gram + (confidence - 1.0) * outer
    solved = torch.cholesky_solve(confidence * right[..., None], torch.linalg.cholesky(normal))
    return solved.squeeze(-1)


def fold_in_parts(
    item_factors: Tensor,
    rows: Tensor,
    candidates: Tensor,
    *,
    confidence: float = CONFIDENCE,
    ridge: float = RIDGE,
) -> Tensor:
    """Return what each item of one user adds to the scores of some candidates (R, C).

    The parts add up to the product of the user's factors (``fold_in``) and the candidate's; this is
    the explanation of Hu, Koren and Volinsky (2008), section 5.

    Args:
        item_factors: Fitted item factors (N, D).
        rows: The user's items, distinct, int64 (R,).
        candidates: Item rows, int64 (C,).
        confidence: As for :class:`IALS`.
        ridge: As for :class:`IALS`.
    """
    met = item_factors[rows]  # (R, D)
    identity = torch.eye(met.shape[1], dtype=met.dtype, device=met.device)
    normal = item_factors.T @ item_factors + ridge * identity + (confidence - 1) * met.T @ met
    solved = torch.cholesky_solve(met.T, torch.linalg.cholesky(normal))  # (D, R)
    return confidence * solved.T @ item_factors[candidates].T


class Factors(NamedTuple):
    """Factors (U, D) and (N, D), zero for a user or an item without events."""

    users: Floats
    items: Floats


class _Batch(NamedTuple):
    rows: Tensor  # (b,)
    columns: Tensor  # which columns each row has, int64 (b, L)
    present: Tensor  # 1.0 where ``columns`` is not padding (b, L)


def _batches(matrix: "sparse.csr_matrix", cells_at_once: int) -> list[_Batch]:
    """Return the non-empty rows in padded batches, short rows first.

    The lengths of the rows in one batch differ by at most a factor of two.
    """
    lengths = np.diff(matrix.indptr)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    batches, start = [], 0
    while start < len(order):
        # The last row of a batch is its longest, and all are padded to it.
        longest = lengths[order[start:]]
        cells = longest * np.arange(1, len(longest) + 1)
        fits = (cells <= cells_at_once) & (longest <= 2 * longest[0])
        size = max(int(fits.sum()), 1)
        batches.append(_batch(matrix, order[start : start + size], lengths))
        start += size
    return batches


def _batch(matrix: "sparse.csr_matrix", rows: Ints, lengths: Ints) -> _Batch:
    ranks = np.arange(lengths[rows].max())
    present = ranks < lengths[rows, None]  # (b, L)
    positions = np.where(present, matrix.indptr[rows, None] + ranks, 0)
    columns = matrix.indices[positions].astype(np.int64)
    return _Batch(
        rows=torch.from_numpy(rows),
        columns=torch.from_numpy(columns),
        present=torch.from_numpy(present.astype(np.float32)),
    )
