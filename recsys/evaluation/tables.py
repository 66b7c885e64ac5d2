"""From the answers of several systems to the table that compares them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Doubles
from recsys.errors import InvalidArgumentError
from recsys.evaluation.bootstrap import estimates
from recsys.evaluation.exposure import (
    diversity,
    gap,
    gini,
    mean_of,
    means_of,
    novelty,
    popularity,
    popularity_percentiles,
    shares,
)
from recsys.evaluation.facts import ItemFacts
from recsys.evaluation.protocol import SystemResult, check_same_queries
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import (
    ExposureTable,
    RankingTable,
    Role,
    Shown,
    SliceRow,
    SystemRow,
    headline,
)
from recsys.evaluation.significance import (
    PairedTest,
    detectable_differences,
    holm,
    paired_p_values,
)
from recsys.evaluation.slices import NO_LABELS, UserLabels, flat_answers, means_by_user

Answered = Sequence[tuple[Role, SystemResult]]


def ranking_table(
    queries: Queries,
    systems: Answered,
    *,
    facts: ItemFacts | None = None,
    user_labels: UserLabels = NO_LABELS,
) -> RankingTable:
    """Return the table of systems that answered the same queries, best NDCG first after ours.

    Args:
        queries: Queries that all systems answered.
        systems: Results with their roles; exactly one is ours.
        facts: Facts about the items, for the metrics of what systems show; None leaves those out.
        user_labels: Groups of users by which quality is shown.

    Raises:
        InvalidArgumentError: If not exactly one system is ours, one answered other queries, or the
            labels are not one for each user.
    """
    ours = [result for role, result in systems if role == "ours"]
    if len(ours) != 1:
        raise InvalidArgumentError(
            f"systems must have exactly one with the role 'ours', got {len(ours)}"
        )
    for _, result in systems:
        check_same_queries(ours[0], result)
    for grouping, labels in user_labels.items():
        if len(labels) != len(queries):
            raise InvalidArgumentError(
                f"user_labels[{grouping!r}] must have a label for each of the {len(queries):,} "
                f"users of the queries, got {len(labels):,}"
            )
    first = headline(ours[0].per_user)[0]
    systems = sorted(systems, key=lambda one: (one[0] != "ours", -one[1].estimates[first].mean))
    table = RankingTable(
        queries.scope,
        len(queries),
        int(queries.candidates.sum()),
        _compared(systems),
        slices=_slices(queries, systems, user_labels, facts),
    )
    if facts is None:
        return table
    percentiles = popularity_percentiles(facts.buyers, queries.candidates)
    shown = _shown(queries, systems, facts, percentiles)
    return replace(
        table,
        systems=[replace(row, shown=one) for row, one in zip(table.systems, shown, strict=True)],
        popularity_taken=mean_of(means_by_user(queries, percentiles)),
        exposure=_exposure(queries, systems, facts),
    )


def _compared(systems: Answered) -> list[SystemRow]:
    """Return a row for each system, ours first, with its distance from ours, user by user."""
    rows = [
        SystemRow(
            name=result.name,
            role=role,
            metrics=result.estimates,
            behind={},
            coverage=result.coverage,
            counts=result.counts,
            probabilities=result.probabilities,
        )
        for role, result in systems
    ]
    names = list(systems[0][1].per_user)
    ours, *others = (_columns(result, names) for _, result in systems)
    if not others:
        return rows
    differences = np.concatenate([ours - theirs for theirs in others], axis=1)
    shape = (len(others), len(names))
    p_values = paired_p_values(differences).reshape(shape)
    corrected = np.apply_along_axis(holm, 0, p_values)
    detectable = detectable_differences(differences, family=len(others)).reshape(shape)
    tests = np.stack([p_values, corrected, detectable], axis=2)  # (systems, metrics, 3)
    gains = iter(estimates(differences))
    return [
        rows[0],
        *(
            replace(
                row,
                behind={name: next(gains) for name in names},
                tests={
                    name: PairedTest(*map(float, three))
                    for name, three in zip(names, of_row, strict=True)
                },
            )
            for row, of_row in zip(rows[1:], tests, strict=True)
        ),
    ]


def _columns(result: SystemResult, names: Sequence[str]) -> Doubles:
    return np.stack([result.per_user[name] for name in names], axis=1)


def _shown(
    queries: Queries, systems: Answered, facts: ItemFacts, percentiles: Doubles
) -> list[Shown]:
    """Return what each system shows, at every k."""
    ks = list(systems[0][1].coverage)
    rankings = [result.ranked for _, result in systems]
    columns = [
        values
        for ranked in rankings
        for values in (
            *(novelty(ranked, facts.buyers, facts.n_users, k) for k in ks),
            *(diversity(ranked, facts.embeddings, k) for k in ks),
            *(popularity(ranked, percentiles, k) for k in ks),
        )
    ]
    means = iter(means_of(columns))
    return [
        Shown(
            novelty={k: next(means) for k in ks},
            diversity={k: next(means) for k in ks},
            popularity={k: next(means) for k in ks},
            gini={k: gini(ranked, queries.candidates, k) for k in ks},
        )
        for ranked in rankings
    ]


def _exposure(queries: Queries, systems: Answered, facts: ItemFacts) -> list[ExposureTable]:
    """Return, for every item column, to which values the places at the smallest k go."""
    k = min(systems[0][1].coverage)
    everybody = np.ones(len(queries), dtype=np.bool_)
    tables = []
    for column, labels in facts.labels.items():
        names = sorted(set(labels))
        shown, taken = _shown_and_taken(queries, systems, labels, everybody)
        on_offer = shares(np.flatnonzero(queries.candidates), labels, names)
        tables.append(ExposureTable(column, k, on_offer=on_offer, taken=taken, shown=shown))
    return tables


def _shown_and_taken(
    queries: Queries, systems: Answered, labels: Sequence[str], users: NDArray[np.bool_]
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return the shares of item labels that each system shows some users, and that they took."""
    k, names = min(systems[0][1].coverage), sorted(set(labels))
    owners, answers = flat_answers(queries)
    shown = {result.name: shares(result.ranked[users, :k], labels, names) for _, result in systems}
    return shown, shares(answers[users[owners]], labels, names)


def _slices(
    queries: Queries, systems: Answered, user_labels: UserLabels, facts: ItemFacts | None
) -> list[SliceRow]:
    """Return every system's first metric, and what it shows, for every group of users."""
    names = [result.name for _, result in systems]
    metric = headline(systems[0][1].per_user)[0]
    values = np.stack([result.per_user[metric] for _, result in systems], axis=1)
    columns = {} if facts is None else facts.labels
    rows = []
    for grouping, labels in user_labels.items():
        for label in sorted(set(labels), key=_label_order):
            users = np.array(labels) == label
            means = dict(zip(names, estimates(values[users]), strict=True))
            gaps = {}
            for column, item_labels in columns.items():
                shown, taken = _shown_and_taken(queries, systems, item_labels, users)
                gaps[column] = {name: gap(shown[name], taken) for name in names}
            rows.append(SliceRow(grouping, label, int(users.sum()), metric, means, gaps))
    return rows


def _label_order(label: str) -> tuple[int, str]:
    known = ("no", "yes", "none", "some", "all", "low", "middle", "high")
    return known.index(label) if label in known else len(known), label
