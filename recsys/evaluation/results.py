"""Everything that a report says, as plain values."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from recsys.errors import InvalidArgumentError
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.protocol import SystemResult, compare
from recsys.evaluation.queries import Queries, Scope

Role = Literal["ours", "ablation", "baseline"]


def headline(metrics: Collection[str]) -> list[str]:
    """Return the metrics that tables show, of those measured: NDCG, recall and hit rate.

    Recall is shown at the largest k that was measured, the others at the smallest.
    """
    ks = sorted({int(name.partition("@")[2]) for name in metrics})
    wanted = f"ndcg@{ks[0]}", f"recall@{ks[-1]}", f"hit_rate@{ks[0]}"
    return [name for name in wanted if name in metrics]


@dataclass(frozen=True)
class SystemRow:
    """One system in a table.

    Args:
        name: The system.
        role: Whether it is the bundle, an ablation of it, or a baseline.
        metrics: Means over users with 95 % intervals, under names like ``ndcg@10``.
        behind: Ours minus this system, paired by user; empty for ours.
        coverage: Share of the candidates that at least one user was shown, by k.
    """

    name: str
    role: Role
    metrics: Mapping[str, Estimate]
    behind: Mapping[str, Estimate]
    coverage: Mapping[int, float]


@dataclass(frozen=True)
class RankingTable:
    """Metrics of every system on the queries of one scope, ours first."""

    scope: Scope
    n_users: int
    n_candidates: int
    systems: Sequence[SystemRow]


@dataclass(frozen=True)
class RetrievalRow:
    """How often the right item comes first, or among the first five.

    Args:
        task: Query and answer, such as ``photo → item``.
        n_queries: Number of queries.
        n_candidates: Number of items to choose from.
        top1: Share of queries whose right item comes first.
        top5: Share of queries with the right item among the first five.
    """

    task: str
    n_queries: int
    n_candidates: int
    top1: Estimate
    top5: Estimate


@dataclass(frozen=True)
class ClassificationRow:
    """How often the predicted class is right.

    Args:
        target: Predicted label, such as ``category_2``.
        n_photos: Number of photos.
        n_classes: Number of classes to choose from.
        accuracy: Share of right predictions.
        majority: Share of the most frequent class, which a constant answer would reach; None if
            unknown.
    """

    target: str
    n_photos: int
    n_classes: int
    accuracy: Estimate
    majority: float | None = None


@dataclass(frozen=True)
class StageTiming:
    """How long one stage took, in the run that executed it, and whether this run reused it."""

    stage: str
    seconds: float
    reused: bool = False


@dataclass(frozen=True)
class QuarantineRow:
    """How many rows of a table broke a rule, and how many of them are used without the bad cell."""

    table: str
    rule: str
    n_rows: int
    n_kept: int


@dataclass(frozen=True)
class GalleryItem:
    """One item as people see it.

    Args:
        title: Title of the item, or its id without one.
        picture: Bytes of its picture, None without one.
        note: Reason for the recommendation.
        taken: Whether the user took it after the split.
    """

    title: str
    picture: bytes | None = None
    note: str = ""
    taken: bool = False


@dataclass(frozen=True)
class GalleryUser:
    """What one user did last, newest first, and what is recommended, best first."""

    user_id: str
    history: Sequence[GalleryItem]
    recommended: Sequence[GalleryItem]


@dataclass(frozen=True)
class Report:
    """One training run's results.

    Args:
        title: Heading of the report.
        created_at: Time of the report, ISO 8601.
        bundle_version: Version of the bundle, None if unknown.
        split_time: Moment between training and test, ISO 8601; None without events.
        sizes: Number of items, users, events and so on.
        left_out: Parts that were not trained or measured, one sentence each with the reason.
        rankings: One table per scope.
        retrieval: Results of identification.
        classification: Results of the category classifiers.
        timings: Duration of each stage, in the order in which they ran.
        quarantine: Counts of the rows that were left out.
        gallery: A few users with what they did and what is recommended.
    """

    title: str
    created_at: str
    bundle_version: str | None = None
    split_time: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    rankings: Sequence[RankingTable] = ()
    retrieval: Sequence[RetrievalRow] = ()
    classification: Sequence[ClassificationRow] = ()
    timings: Sequence[StageTiming] = ()
    quarantine: Sequence[QuarantineRow] = ()
    gallery: Sequence[GalleryUser] = ()


def ranking_table(queries: Queries, systems: Sequence[tuple[Role, SystemResult]]) -> RankingTable:
    """Return the table of systems that answered the same queries, best NDCG first after ours.

    Args:
        queries: Queries that all systems answered.
        systems: Results with their roles; exactly one is ours.

    Raises:
        InvalidArgumentError: If not exactly one system is ours, or one answered other queries.
    """
    ours = [result for role, result in systems if role == "ours"]
    if len(ours) != 1:
        raise InvalidArgumentError(
            f"systems must have exactly one with the role 'ours', got {len(ours)}"
        )
    rows = [
        SystemRow(
            name=result.name,
            role=role,
            metrics=result.estimates,
            behind={}
            if role == "ours"
            else {metric: compare(ours[0], result, metric) for metric in result.estimates},
            coverage=result.coverage,
        )
        for role, result in systems
    ]
    first = headline(rows[0].metrics)[0]
    rows.sort(key=lambda row: (row.role != "ours", -row.metrics[first].mean))
    return RankingTable(queries.scope, len(queries), int(queries.candidates.sum()), rows)
