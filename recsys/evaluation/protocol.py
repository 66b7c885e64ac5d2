"""Rank the full catalogue for every user and score the ranking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Ints
from recsys.errors import InvalidArgumentError
from recsys.evaluation.bootstrap import Estimate, difference, estimates
from recsys.evaluation.metrics import METRICS, coverage_at_k
from recsys.evaluation.queries import Queries, Scope

# Given user rows (B,), the scores of the whole catalogue (B, N); higher ranks first.
Scorer = Callable[[Ints], NDArray[np.float32]]
# Called with the number of users that are done, and of all users.
UsersDone = Callable[[int, int], None]


@dataclass(frozen=True)
class SystemResult:
    """One system's answers to one set of queries, and their metrics.

    Args:
        name: The system.
        scope: Scope of the queries.
        user_rows: Users of the queries (U,).
        ranked: Item rows, best first, int64 (U, K); -1 pads.
        per_user: One number per user (U,) under a name like ``ndcg@10``.
        estimates: Their means with bootstrap intervals, under the same names.
        coverage: Share of the candidates that at least one user was shown, by k.
    """

    name: str
    scope: Scope
    user_rows: Ints
    ranked: Ints
    per_user: Mapping[str, NDArray[np.float64]]
    estimates: Mapping[str, Estimate]
    coverage: Mapping[int, float]


def evaluate(
    name: str,
    scorer: Scorer,
    queries: Queries,
    *,
    ks: Sequence[int] = (10, 20),
    batch_size: int = 512,
    seed: int = 0,
    progress: UsersDone | None = None,
) -> SystemResult:
    """Return the system's rankings and every metric at every k.

    Args:
        name: The system's name in tables.
        scorer: Scores the whole catalogue for a batch of users.
        queries: Queries to rank for.
        ks: Cut-offs of the metrics; ranks beyond the catalogue size stay empty.
        batch_size: Users scored at once.
        seed: Random seed for the order of ties and for the bootstrap.
        progress: Called after every batch.

    Raises:
        InvalidArgumentError: If ``ks`` or ``batch_size`` has a number below 1, or the scores are
            not finite or of the wrong shape.
    """
    (ranked,) = rank_queries(
        scorer, [queries], ks=ks, batch_size=batch_size, seed=seed, progress=progress
    )
    return score_ranking(name, ranked, queries, ks=ks, seed=seed)


def rank_queries(
    scorer: Scorer,
    query_sets: Sequence[Queries],
    *,
    ks: Sequence[int] = (10, 20),
    batch_size: int = 512,
    seed: int = 0,
    progress: UsersDone | None = None,
) -> list[Ints]:
    """Return the rankings (U, max(ks)) of every set of queries; each user is scored once.

    Args:
        scorer: Scores the whole catalogue for a batch of users.
        query_sets: Sets of queries to the same catalogue, one for each scope.
        ks: Cut-offs of the metrics; the largest is the length of a ranking.
        batch_size: Users scored at once.
        seed: Random seed for the order of ties.
        progress: Called after every batch.

    Raises:
        InvalidArgumentError: As for ``evaluate``.
    """
    if not ks or min(ks) < 1:
        raise InvalidArgumentError(f"ks must be one or more numbers of at least 1, got {list(ks)}")
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    ranked = [np.empty((len(queries), max(ks)), dtype=np.int64) for queries in query_sets]
    users: Ints = np.unique(np.concatenate([queries.user_rows for queries in query_sets]))
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        scores = scorer(batch)
        for queries, into in zip(query_sets, ranked, strict=True):
            rows = np.flatnonzero(np.isin(queries.user_rows, batch))
            into[rows] = rank_scores(
                scores[np.searchsorted(batch, queries.user_rows[rows])],
                excluded=[queries.excluded[position] for position in rows.tolist()],
                candidates=queries.candidates,
                k=max(ks),
                seed=seed,
            )
        if progress is not None:
            progress(min(start + batch_size, len(users)), len(users))
    return ranked


def score_ranking(
    name: str, ranked: Ints, queries: Queries, *, ks: Sequence[int] = (10, 20), seed: int = 0
) -> SystemResult:
    """Return every metric at every k of rankings (U, K) from anywhere.

    Raises:
        InvalidArgumentError: If the rankings do not fit the queries or have fewer than
            ``max(ks)`` ranks.
    """
    per_user = {
        f"{metric}@{k}": compute(ranked, queries.relevant, k)
        for metric, compute in METRICS.items()
        for k in ks
    }
    means = estimates(np.stack(list(per_user.values()), axis=1), seed=seed)
    return SystemResult(
        name=name,
        scope=queries.scope,
        user_rows=queries.user_rows,
        ranked=ranked,
        per_user=per_user,
        estimates=dict(zip(per_user, means, strict=True)),
        coverage={k: coverage_at_k(ranked, queries.candidates, k) for k in ks},
    )


def compare(ours: SystemResult, theirs: SystemResult, metric: str, *, seed: int = 0) -> Estimate:
    """Return the mean of ours minus theirs with its paired bootstrap interval.

    Args:
        ours: One system.
        theirs: Another, on the same queries.
        metric: A name of ``per_user``, such as ``ndcg@10``.
        seed: Random seed for the bootstrap.

    Raises:
        InvalidArgumentError: If the two answered different queries or the metric is unknown.
    """
    if ours.scope != theirs.scope or not np.array_equal(ours.user_rows, theirs.user_rows):
        raise InvalidArgumentError(
            f"theirs must answer the queries of ours ({ours.scope!r}, {len(ours.user_rows)} "
            f"users), got {theirs.scope!r} with {len(theirs.user_rows)} users"
        )
    for result in (ours, theirs):
        if metric not in result.per_user:
            raise InvalidArgumentError(
                f"metric must be one of {sorted(result.per_user)}, got {metric!r}"
            )
    return difference(ours.per_user[metric], theirs.per_user[metric], seed=seed)


def rank_scores(
    scores: NDArray[np.float32],
    *,
    excluded: Sequence[Ints],
    candidates: NDArray[np.bool_],
    k: int,
    seed: int = 0,
) -> Ints:
    """Return each user's k best candidates, best first, int64 (B, k); -1 where there are fewer.

    Equal scores are put in the order of one seeded permutation of the catalogue: a system that
    scores all items alike is then as good as chance, not as good as the catalogue's order.
    The order of two items depends on nothing else, so it is the same in every batch.

    Args:
        scores: Higher is better, (B, N); minus infinity keeps an item out.
        excluded: Per user, item rows to keep out.
        candidates: Which items may be ranked, bool (N,).
        k: Length of each ranking.
        seed: Random seed for the permutation.

    Raises:
        InvalidArgumentError: If the shapes disagree, k < 1, or a score is not float32, NaN or plus
            infinity.
    """
    _check_scores(scores, excluded, candidates, k)
    order = np.random.default_rng(seed).permutation(len(candidates))
    order = order[candidates[order]]  # (n,), the candidates as ties rank them
    out = np.isneginf(scores)
    for position, rows in enumerate(excluded):
        out[position, rows] = True
    keys = _sortable(scores[:, order])  # (B, n)
    keys[out[:, order]] = _OUT
    kept = min(k, len(order))
    ranked = np.full((len(scores), k), -1, dtype=np.int64)
    if kept:
        best = np.argpartition(keys, kept - 1, axis=1)[:, :kept]
        values = np.take_along_axis(keys, best, axis=1)
        best = np.take_along_axis(best, np.argsort(values, axis=1), axis=1)
        ranked[:, :kept] = np.where(np.sort(values, axis=1) == _OUT, -1, order[best])
    return ranked


_OUT = np.iinfo(np.int64).max  # sorts after every score


def _sortable(scores: NDArray[np.float32]) -> Ints:
    """Return distinct integers that sort by falling score, then by column, int64 (B, n)."""
    # + 0.0 makes -0.0 equal 0.0. The bits of a float sort like a signed integer once those of
    # negative numbers are flipped.
    bits = (scores + np.float32(0.0)).view(np.int32)
    bits = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return (-bits.astype(np.int64) << 32) + np.arange(scores.shape[1])


def _check_scores(
    scores: NDArray[np.float32], excluded: Sequence[Ints], candidates: NDArray[np.bool_], k: int
) -> None:
    if k < 1:
        raise InvalidArgumentError(f"k must be at least 1, got {k}")
    if scores.dtype != np.float32:
        raise InvalidArgumentError(f"scores must be float32, got {scores.dtype}")
    if scores.shape != (len(excluded), len(candidates)):
        raise InvalidArgumentError(
            f"scores must have shape {(len(excluded), len(candidates))} (users, catalogue), "
            f"got {scores.shape}"
        )
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise InvalidArgumentError(
            "scores must be finite or minus infinity, got NaN or plus infinity"
        )
