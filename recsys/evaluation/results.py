"""Everything that a report says, as plain values."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.lists import ListCounts
from recsys.evaluation.probabilities import Probabilities
from recsys.evaluation.queries import Scope
from recsys.evaluation.significance import PairedTest

Role = Literal["ours", "bundle", "list", "ablation", "baseline"]


def headline(metrics: Collection[str]) -> list[str]:
    """Return the metrics that tables show, of those measured: NDCG, recall and hit rate.

    Recall is shown at the largest k that was measured, the others at the smallest.
    """
    ks = sorted({int(name.partition("@")[2]) for name in metrics if "@" in name})
    wanted = f"ndcg@{ks[0]}", f"recall@{ks[-1]}", f"hit_rate@{ks[0]}"
    return [name for name in wanted if name in metrics]


@dataclass(frozen=True)
class Shown:
    """What a system shows, whether right or wrong; None where nobody is shown enough to say.

    Args:
        novelty: Mean self-information of the first k items in bits, by k.
        diversity: 1 - the mean cosine of the pairs among them, by k.
        popularity: Mean popularity percentile of them, from 0 to 1, by k.
        gini: How unequally the candidates are shown, from 0 to 1, by k.
    """

    novelty: Mapping[int, Estimate | None]
    diversity: Mapping[int, Estimate | None]
    popularity: Mapping[int, Estimate | None]
    gini: Mapping[int, float]


@dataclass(frozen=True)
class SystemRow:
    """One system in a table.

    Args:
        name: The system.
        role: Whether it is the bundle, another bundle, a list that was made elsewhere, an ablation
            of the bundle, or a baseline.
        metrics: Means over users with 95 % intervals, under names like ``ndcg@10``.
        behind: Ours minus this system, paired by user; empty for ours.
        coverage: Share of the candidates that at least one user was shown, by k.
        tests: Tests of those differences, corrected for the systems of the table; empty for ours.
        shown: What it shows; None if that was not measured.
        counts: What was removed from a list that was made elsewhere; None for other systems.
        probabilities: How good its probabilities are; None for a system that states none.
    """

    name: str
    role: Role
    metrics: Mapping[str, Estimate]
    behind: Mapping[str, Estimate]
    coverage: Mapping[int, float]
    tests: Mapping[str, PairedTest] = field(default_factory=dict)
    shown: Shown | None = None
    counts: ListCounts | None = None
    probabilities: Probabilities | None = None


@dataclass(frozen=True)
class ExposureTable:
    """To which values of an item column the first k places go.

    Args:
        column: Column or attribute of the items.
        k: Number of places of each user.
        on_offer: Share of the candidates with each value.
        taken: Share of the answers with each value.
        shown: Share of the places with each value, by system.
    """

    column: str
    k: int
    on_offer: Mapping[str, float]
    taken: Mapping[str, float]
    shown: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class SliceRow:
    """One metric of every system for one group of users.

    Args:
        grouping: What users are grouped by, such as "activity".
        label: The group, such as "low".
        n_users: Number of users in it.
        metric: The metric.
        systems: Mean of each system with its interval.
        exposure_gap: How far what each system shows this group is from what it took, by column of
            the items; see ``recsys.evaluation.exposure.gap``.
    """

    grouping: str
    label: str
    n_users: int
    metric: str
    systems: Mapping[str, Estimate]
    exposure_gap: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RankingTable:
    """Metrics of every system on the queries of one scope, ours first.

    Args:
        scope: Scope of the queries.
        n_users: Number of users who were asked for.
        n_candidates: Number of items that were ranked.
        systems: The systems, ours first and then by NDCG.
        popularity_taken: Mean popularity percentile of what users took; None if not measured.
        exposure: What is shown and taken, by columns of the items.
        slices: Quality by groups of users.
    """

    scope: Scope
    n_users: int
    n_candidates: int
    systems: Sequence[SystemRow]
    popularity_taken: Estimate | None = None
    exposure: Sequence[ExposureTable] = ()
    slices: Sequence[SliceRow] = ()


@dataclass(frozen=True)
class OfferRow:
    """How much one source of candidates offers.

    Args:
        source: Name of the source.
        number: Number of items that it may offer to a user.
        recall: Share of a user's answers that it offers, as a mean over users.
    """

    source: str
    number: int
    recall: Estimate


@dataclass(frozen=True)
class OfferTable:
    """What a ranking of offers finds, beside a ranking of all items by the same ranker.

    Args:
        scope: Scope of the queries.
        n_users: Number of users, a sample of those of the scope.
        n_candidates: Number of items that could be offered.
        n_offered: Mean number of items that are offered to a user.
        sources: The sources, in the order of ``docs/ranking.md``.
        union: Share of a user's answers that any source offers, as a mean over users.
        ndcg: NDCG@10 of the ranking of offers.
        ndcg_of_all: NDCG@10 of the ranking of all items.
        lost: The second minus the first, paired by user.
    """

    scope: Scope
    n_users: int
    n_candidates: int
    n_offered: float
    sources: Sequence[OfferRow]
    union: Estimate
    ndcg: Estimate
    ndcg_of_all: Estimate
    lost: Estimate

    @property
    def lost_share(self) -> float:
        """Share of the NDCG of all items that is lost; 0 where there is none to lose."""
        return self.lost.mean / self.ndcg_of_all.mean if self.ndcg_of_all.mean else 0.0


@dataclass(frozen=True)
class Offers:
    """What ranking offers costs.

    Args:
        sentence: What is ranked, in words.
        tables: One table a scope; empty where all items are ranked.
    """

    sentence: str
    tables: Sequence[OfferTable]


@dataclass(frozen=True)
class ProbabilityGroup:
    """Pairs with probabilities of one range.

    Args:
        n_pairs: Number of pairs.
        stated: Mean of their probabilities.
        happened: Share of them that was taken.
    """

    n_pairs: int
    stated: float
    happened: float


@dataclass(frozen=True)
class ProbabilityRow:
    """How well the bundle's probabilities agree with what users took.

    The pairs are a sample of the users who have a history, whether they come back or not, each with
    the items of an answer as long as an answer can be.

    Args:
        scope: "new" leaves the user's own items out of the answers.
        days: Length of the window that follows the split.
        n_users: Number of users.
        n_pairs: Number of pairs of a user and an item.
        stated: Mean of the probabilities.
        happened: Share of the pairs that was taken in the window.
        log_loss: Mean of -log of the probability of what happened.
        log_loss_of_rate: The same, if every pair had the probability ``happened``.
        calibration_error: Expected calibration error over ten groups of as many pairs each.
        groups: Groups in which the probabilities sum up to the same number, lowest first.
    """

    scope: Scope
    days: float
    n_users: int
    n_pairs: int
    stated: float
    happened: float
    log_loss: Estimate
    log_loss_of_rate: float
    calibration_error: float
    groups: Sequence[ProbabilityGroup]


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
class Failure:
    """A user for whom ours is behind the best baseline.

    Args:
        user_id: The user.
        metric: Metric by which ours is behind.
        ours: What ours scores for the user.
        theirs: What the baseline scores.
        system: The baseline.
        history: What the user did last before the split, newest first.
        right: What the user took after it.
        our_list: What ours recommends, best first.
        their_list: What the baseline recommends, best first.
    """

    user_id: str
    metric: str
    ours: float
    theirs: float
    system: str
    history: Sequence[GalleryItem]
    right: Sequence[GalleryItem]
    our_list: Sequence[GalleryItem]
    their_list: Sequence[GalleryItem]


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
        weights: Weights that each tower began with and their licence, one sentence each.
        ranks_by: What was chosen to rank, and by how much, one sentence per scope.
        identifies: What is promised of the products that photos are identified as; empty for a
            bundle that does not identify.
        tuning: What a search for settings tried and changed; empty without one.
        rules: Rules by which its lists are made; empty for none.
        rankings: One table per scope.
        offers: What the sources of candidates offer; None if ranking was not measured.
        probabilities: How good the probabilities of answers are, one row per scope.
        retrieval: Results of identification.
        classification: Results of the category classifiers.
        timings: Duration of each stage, in the order in which they ran.
        quarantine: Counts of the rows that were left out.
        gallery: A few users with what they did and what is recommended.
        failures: The users for whom ours falls furthest behind the best baseline.
    """

    title: str
    created_at: str
    bundle_version: str | None = None
    split_time: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    weights: Sequence[str] = ()
    ranks_by: Sequence[str] = ()
    identifies: str = ""
    tuning: str = ""
    rules: str = ""
    rankings: Sequence[RankingTable] = ()
    offers: Offers | None = None
    probabilities: Sequence[ProbabilityRow] = ()
    retrieval: Sequence[RetrievalRow] = ()
    classification: Sequence[ClassificationRow] = ()
    timings: Sequence[StageTiming] = ()
    quarantine: Sequence[QuarantineRow] = ()
    gallery: Sequence[GalleryUser] = ()
    failures: Sequence[Failure] = ()
