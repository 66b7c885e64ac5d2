"""The queries of an offline evaluation, made from events before and after a moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.arrays import Ints
from recsys.data.interactions import Interactions, Moment
from recsys.data.splits import check_no_leak
from recsys.errors import DataError, InvalidArgumentError

Scope = Literal["all", "new", "cold"]
SCOPES: tuple[Scope, ...] = ("all", "new", "cold")


class ItemLists(Sequence[Ints]):
    """Item rows of each user, in one array.

    A list of arrays takes twice as much memory, since every array is an object.

    Args:
        rows: Item rows of all users, one user after the other (P,).
        ends: Where the rows of each user end (U,).
    """

    def __init__(self, rows: Ints, ends: Ints) -> None:
        self.rows, self.bounds = rows, np.append(0, ends)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> Ints: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ints]: ...
    def __getitem__(self, index: int | slice) -> Ints | list[Ints]:
        """Return the rows of a user, or of each user of a slice."""
        users = range(len(self))[index]
        if isinstance(users, range):
            return [self[user] for user in users]
        return self.rows[self.bounds[users] : self.bounds[users + 1]]


@dataclass(frozen=True)
class Queries:
    """One ranking query per user, all at the same moment.

    Args:
        scope: What counts as an answer; see ``build_queries``.
        now_us: The moment, or that of each user, microseconds UTC. A system may know every event
            before it, none after.
        user_rows: Users to rank for (U,).
        relevant: Per user, the item rows that are right, ascending; never empty.
        excluded: Per user, the item rows that are taken out of the ranking, ascending.
        candidates: Which items are ranked, bool (N,).
    """

    scope: Scope
    now_us: Moment
    user_rows: Ints
    relevant: Sequence[Ints]
    excluded: Sequence[Ints]
    candidates: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user_rows)

    @cached_property
    def n_ranked(self) -> Ints:
        """Number of items that are ranked for each user (U,)."""
        out = [int(self.candidates[rows].sum()) for rows in self.excluded]
        return int(self.candidates.sum()) - np.array(out, dtype=np.int64)

    def of_users(self, users: Ints) -> "Queries":
        """Return the queries of some users."""
        kept = np.flatnonzero(np.isin(self.user_rows, users)).tolist()
        return replace(
            self,
            user_rows=self.user_rows[kept],
            relevant=[self.relevant[query] for query in kept],
            excluded=[self.excluded[query] for query in kept],
        )


def sample_users(query_sets: Sequence[Queries], max_users: int, *, seed: int = 0) -> list[Queries]:
    """Return the queries of at most so many users, the same users in each scope.

    A scope in which none of them has an answer is left out.

    Args:
        query_sets: Queries of each scope.
        max_users: Largest number of users; with no more than these, nothing is changed.
        seed: Random seed of the sample.
    """
    users = _users_of(query_sets)
    if len(users) <= max_users:
        return list(query_sets)
    drawn = np.random.default_rng(seed).permutation(users)[:max_users]
    return [found for one in query_sets if len(found := one.of_users(drawn))]


def describe_sample(every: Sequence[Queries], asked: Sequence[Queries]) -> list[str]:
    """Return how many users ``sample_users`` drew, as a sentence; empty if it kept all."""
    n_users, n_asked = len(_users_of(every)), len(_users_of(asked))
    if n_asked == n_users:
        return []
    return [f"{n_users - n_asked:,} of {n_users:,} users: {n_asked:,} were drawn at random"]


def _users_of(query_sets: Sequence[Queries]) -> Ints:
    users: Ints = np.unique(np.concatenate([one.user_rows for one in query_sets]))
    return users


def build_queries(
    train: Interactions,
    test: Interactions,
    *,
    now_us: Moment,
    scope: Scope,
    target_kinds: Sequence[str] | None = None,
    candidates: NDArray[np.bool_] | None = None,
) -> Queries:
    """Return one query for every user who has a history and an answer in the scope.

    - ``all``: the catalogue is ranked; every item of it that the user took after ``now_us`` is
      right.
    - ``new``: the same, but what the user took before is neither ranked nor right.
    - ``cold``: items without any event before ``now_us`` are ranked, and are right when taken.

    The catalogue is ``candidates``; where not given, the items with an event before ``now_us``,
    and for ``cold`` all items.

    Args:
        train: Events before ``now_us``.
        test: Events from ``now_us`` on, with the same user and item rows.
        now_us: The moment of the split, or that of each user, microseconds UTC.
        scope: What is ranked and what is right.
        target_kinds: Event kinds that count as taking an item; all kinds where not given. The
            history that a user needs, and that an item must or must not have, is of any kind.
        candidates: The catalogue at the split, bool (N,).

    Raises:
        LeakageError: If ``train`` has an event at or after ``now_us``, or ``test`` one before it.
        DataError: If no user has both.
        InvalidArgumentError: If the scope is unknown or the rows of the two do not correspond.
    """
    check_no_leak(train, test, at_us=now_us if isinstance(now_us, int) else None)
    if scope not in SCOPES:
        raise InvalidArgumentError(f"scope must be one of {list(SCOPES)}, got {scope!r}")
    if candidates is not None and candidates.shape != (train.n_items,):
        raise InvalidArgumentError(
            f"candidates must have shape ({train.n_items},), got {candidates.shape}"
        )
    met = train.matrix()
    known = met.getnnz(axis=0) > 0  # (N,)
    if scope == "cold":
        ranked = ~known if candidates is None else ~known & candidates
    else:
        ranked = known if candidates is None else candidates
    taken, owned = _pairs(test, target_kinds), _pairs(train, target_kinds)
    right = taken @ sparse.diags(ranked.astype(np.float32))
    if scope == "new":
        right = right - right.multiply(owned)
    right = sparse.csr_matrix(right)
    right.eliminate_zeros()
    user_rows = np.flatnonzero((met.getnnz(axis=1) > 0) & (right.getnnz(axis=1) > 0))
    if len(user_rows) == 0:
        raise DataError(
            f"scope {scope!r} needs at least one user with events before and a right answer after "
            f"the split, got none; move the split or leave the scope out"
        )
    nothing = sparse.csr_matrix(owned.shape, dtype=np.float32)
    return Queries(
        scope=scope,
        now_us=now_us,
        user_rows=user_rows,
        relevant=_rows(right, user_rows),
        excluded=_rows(owned if scope == "new" else nothing, user_rows),
        candidates=ranked,
    )


def _pairs(interactions: Interactions, kinds: Sequence[str] | None) -> "sparse.csr_matrix":
    return (interactions if kinds is None else interactions.of_kinds(kinds)).matrix()


def _rows(matrix: "sparse.csr_matrix", user_rows: Ints) -> ItemLists:
    """Return the columns that each user's row has, ascending."""
    matrix = matrix[user_rows]
    matrix.sort_indices()
    return ItemLists(matrix.indices.astype(np.int64), matrix.indptr[1:].astype(np.int64))
