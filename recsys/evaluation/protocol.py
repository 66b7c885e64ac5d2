"""Rank the full catalogue for every user and score the ranking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Doubles, Ints
from recsys.errors import InvalidArgumentError
from recsys.evaluation.bootstrap import Estimate, difference, estimates, ratio
from recsys.evaluation.lists import ListCounts
from recsys.evaluation.metrics import all_metrics, coverage_at_k
from recsys.evaluation.probabilities import Probabilities
from recsys.evaluation.queries import Queries, Scope
from recsys.evaluation.rankings import (
    TieOrder,
    allowed_rows,
    area_under_curve,
    best_rows,
    tie_numbers,
)

# Given user rows (B,), the scores of the whole catalogue (B, N); higher ranks first.
Scorer = Callable[[Ints], NDArray[np.float32]]
# Given a user row, the item rows that may be ranked, best first, and k, those that are shown.
MakeList = Callable[[int, Ints, int], Ints]
# Called with the number of users that are done, and of all users.
UsersDone = Callable[[int, int], None]


# Larger batches are no faster; memory grows with the product.
MAX_BATCH = 512
SCORES_AT_ONCE = 20_000_000


class Ranking(NamedTuple):
    """One system's answers to one set of queries.

    Args:
        rows: Item rows, best first, int64 (U, K); -1 pads.
        areas: Area under the ROC curve of each user, over all items that are ranked (U,).
    """

    rows: Ints
    areas: Doubles


@dataclass(frozen=True)
class SystemResult:
    """One system's answers to one set of queries, and their metrics.

    Args:
        name: The system.
        scope: Scope of the queries.
        user_rows: Users of the queries (U,).
        ranked: Item rows, best first, int64 (U, K); -1 pads.
        per_user: One number per user (U,) under a name like ``ndcg@10`` or ``auc``.
        estimates: Their means with bootstrap intervals, under the same names, and ``group_auc``,
            the mean area in which a user counts as often as they have answers (Zhou et al., 2018,
            https://arxiv.org/abs/1706.06978).
        coverage: Share of the candidates that at least one user was shown, by k.
        counts: What was removed from a list that was made elsewhere; None for other systems.
        probabilities: How good its probabilities are; None for a system that states none.
    """

    name: str
    scope: Scope
    user_rows: Ints
    ranked: Ints
    per_user: Mapping[str, NDArray[np.float64]]
    estimates: Mapping[str, Estimate]
    coverage: Mapping[int, float]
    counts: ListCounts | None = None
    probabilities: Probabilities | None = None


def evaluate(
    name: str,
    scorer: Scorer,
    queries: Queries,
    *,
    ks: Sequence[int] = (10, 20),
    batch_size: int | None = None,
    seed: int = 0,
    progress: UsersDone | None = None,
    make_list: MakeList | None = None,
) -> SystemResult:
    """Return the system's rankings and every metric at every k.

    Args:
        name: The system's name in tables.
        scorer: Scores the whole catalogue for a batch of users.
        queries: Queries to rank for.
        ks: Cut-offs of the metrics; ranks beyond the catalogue size stay empty.
        batch_size: Users scored at once; None chooses it by the size of the catalogue.
        seed: Random seed for the order of ties and for the bootstrap.
        progress: Called after every batch.
        make_list: Function from ranked items to those that are shown; None shows the first.

    Raises:
        InvalidArgumentError: If ``ks`` or ``batch_size`` has a number below 1, or the scores are
            not finite or of the wrong shape.
    """
    (found,) = rank_queries(
        scorer,
        [queries],
        ks=ks,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        make_list=make_list,
    )
    return score_ranking(name, found.rows, queries, ks=ks, areas=found.areas, seed=seed)


def rank_queries(
    scorer: Scorer,
    query_sets: Sequence[Queries],
    *,
    ks: Sequence[int] = (10, 20),
    batch_size: int | None = None,
    seed: int = 0,
    progress: UsersDone | None = None,
    make_list: MakeList | None = None,
) -> list[Ranking]:
    """Return the rankings of every set of queries; each user is scored once.

    Args:
        scorer: Scores the whole catalogue for a batch of users.
        query_sets: Sets of queries to the same catalogue, one for each scope.
        ks: Cut-offs of the metrics; the largest is the length of a ranking.
        batch_size: Users scored at once; None chooses it by the size of the catalogue.
        seed: Random seed for the order of ties.
        progress: Called after every batch.
        make_list: Function from ranked items to those that are shown; None shows the first.

    Raises:
        InvalidArgumentError: As for ``evaluate``.
    """
    if not ks or min(ks) < 1:
        raise InvalidArgumentError(f"ks must be one or more numbers of at least 1, got {list(ks)}")
    n_items = len(query_sets[0].candidates)
    if batch_size is None:
        batch_size = max(1, min(MAX_BATCH, SCORES_AT_ONCE // max(n_items, 1)))
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size must be at least 1, got {batch_size}")
    found = [
        Ranking(np.full((len(queries), max(ks)), -1, dtype=np.int64), np.empty(len(queries)))
        for queries in query_sets
    ]
    users: Ints = np.unique(np.concatenate([queries.user_rows for queries in query_sets]))
    numbers, keys = tie_numbers(n_items, int(users.max()) + 1, seed)
    orders = [np.argsort(queries.user_rows, kind="stable") for queries in query_sets]
    for start in range(0, len(users), batch_size):
        batch = users[start : start + batch_size]
        scores = scorer(batch)
        for queries, order, into in zip(query_sets, orders, found, strict=True):
            ends = (batch[0], batch[-1] + 1)
            first, last = np.searchsorted(queries.user_rows, ends, sorter=order)
            asked = order[first:last].tolist()
            allowed = allowed_rows(
                scores,
                excluded=[queries.excluded[query] for query in asked],
                candidates=queries.candidates,
                positions=np.searchsorted(batch, queries.user_rows[asked]),
            )
            for query, row in zip(asked, allowed, strict=True):
                user = int(queries.user_rows[query])
                ties, k = TieOrder(numbers, keys[user]), max(ks)
                best = best_rows(row, len(row) if make_list else k, ties)
                best = make_list(user, best, k) if make_list else best
                into.rows[query, : len(best)] = best
                right, n_ranked = queries.relevant[query], int(queries.n_ranked[query])
                into.areas[query] = area_under_curve(row, right, n_ranked)
        if progress is not None:
            progress(min(start + batch_size, len(users)), len(users))
    return found


def score_ranking(
    name: str,
    ranked: Ints,
    queries: Queries,
    *,
    ks: Sequence[int] = (10, 20),
    areas: Doubles | None = None,
    seed: int = 0,
) -> SystemResult:
    """Return every metric at every k of rankings from anywhere.

    Args:
        name: The system's name in tables.
        ranked: Item rows, best first, int64 (U, K); -1 pads.
        queries: Queries that the rankings answer.
        ks: Cut-offs of the metrics.
        areas: Area under the ROC curve of each user (U,); None leaves out ``auc`` and
            ``group_auc``, which need the scores of the whole catalogue.
        seed: Random seed for the bootstrap.

    Raises:
        InvalidArgumentError: If the rankings do not fit the queries or have fewer than
            ``max(ks)`` ranks.
    """
    per_user = all_metrics(ranked, queries.relevant, ks)
    if areas is not None:
        per_user["auc"] = areas
    means = dict(
        zip(per_user, estimates(np.stack(list(per_user.values()), axis=1), seed=seed), strict=True)
    )
    if areas is not None:
        weights = np.array([len(rows) for rows in queries.relevant], dtype=np.float64)
        means["group_auc"] = ratio(areas * weights, weights, seed=seed)
    return SystemResult(
        name=name,
        scope=queries.scope,
        user_rows=queries.user_rows,
        ranked=ranked,
        per_user=per_user,
        estimates=means,
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
    check_same_queries(ours, theirs)
    for result in (ours, theirs):
        if metric not in result.per_user:
            raise InvalidArgumentError(
                f"metric must be one of {sorted(result.per_user)}, got {metric!r}"
            )
    return difference(ours.per_user[metric], theirs.per_user[metric], seed=seed)


def check_same_queries(ours: SystemResult, theirs: SystemResult) -> None:
    """Raise unless two systems answered the same queries.

    Raises:
        InvalidArgumentError: If they did not.
    """
    if ours.scope != theirs.scope or not np.array_equal(ours.user_rows, theirs.user_rows):
        raise InvalidArgumentError(
            f"theirs must answer the queries of ours ({ours.scope!r}, {len(ours.user_rows)} "
            f"users), got {theirs.scope!r} with {len(theirs.user_rows)} users"
        )
