"""Evaluate a bundle: everything that can be measured on it, as one report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from recsys.bundle import Bundle
from recsys.config import EvaluationConfig
from recsys.data.dataset import Dataset
from recsys.data.frames import Frame
from recsys.data.progress import Progress
from recsys.data.tables import Source
from recsys.data.timestamps import from_us
from recsys.errors import DataError, LeakageError
from recsys.evaluation.gallery import failures, regular_users
from recsys.evaluation.offers import report_offers
from recsys.evaluation.others import bundle_system, other_systems
from recsys.evaluation.outcomes import report_probabilities
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import (
    ClassificationRow,
    Offers,
    ProbabilityRow,
    QuarantineRow,
    RankingTable,
    Report,
    RetrievalRow,
    StageTiming,
)
from recsys.evaluation.slices import NO_LABELS, UserLabels, read_users
from recsys.evaluation.systems import (
    System,
    baseline_systems,
    classify_photos,
    identify_photos,
    rank_systems,
)
from recsys.evaluation.tables import Answered
from recsys.pipeline import Run
from recsys.ranking.baselines import ContentKNN
from recsys.ranking.rankers import SIMPLE


def report_run(
    run: Run, config: EvaluationConfig, *, title: str, progress: Progress | None = None
) -> Report:
    """Return the report of a training run: what its bundle scores, and how the run went."""
    bundle = Bundle(run.bundle)
    others = []
    for name, path in run.ablations.items() if "ranking" in bundle.parts else ():
        ablation = Bundle(path)
        alone = f"{name.removesuffix('-only')}-kNN"
        content = ContentKNN(ablation.item_embeddings, name=alone)
        others.append(bundle_system("ablation", name, ablation, bundle))
        others += baseline_systems(bundle, [content])
    report = _report(bundle, config, title, others, dataset=run.dataset, progress=progress)
    timings = [StageTiming(stage.name, stage.seconds, stage.skipped) for stage in run.stages]
    return replace(report, timings=timings, tuning=run.tuning.sentence if run.tuning else "")


def evaluate(
    bundle: Bundle | str | Path,
    config: EvaluationConfig = EvaluationConfig(),
    *,
    title: str | None = None,
    bundles: Mapping[str, Bundle | str | Path] = {},
    lists: Mapping[str, Source | Frame] = {},
    users: Source | Frame | None = None,
    dataset: Dataset | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return what a bundle scores on the events after its split, beside the baselines.

    >>> report = evaluate("runs/shop", lists={"matrix factorisation": recommendations})
    >>> for row in report.rankings[0].systems:
    ...     print(row.name, row.metrics["ndcg@10"])

    Args:
        bundle: A bundle, its folder, or a folder of bundles.
        config: Scopes and cut-offs.
        title: Heading of the report; the bundle's version if None.
        bundles: Bundles to compare with, by name, with the same events after the split.
        lists: Recommendations of other systems to compare with, by name: tables with the columns
            user_id, item_id, and score or rank, as files or DataFrames.
        users: Table of user_id and columns by which users are grouped, such as a region; see
            ``recsys.evaluation.slices.read_users``.
        dataset: Tables of the shop, whose test photos are scored, too; a bundle keeps no photos.
        progress: Called with a system's name, the number of users it has scored, and of all users.

    Raises:
        LeakageError: If the events before the split contain later ones.
        MissingPartError: If there is something to compare, and a bundle was trained without events.
        DataError: If another bundle has another split or other events after it, or a list cannot
            be used; see ``recsys.evaluation.lists.read_list``. If ``users`` cannot be used.
        InvalidArgumentError: If two systems have one name, or ``bundles`` or ``lists`` is not a
            mapping.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    others = other_systems(bundle, bundles=bundles, lists=lists)
    groups = NO_LABELS
    if users is not None:
        bundle.require("ranking")
        groups = read_users(users, bundle.interactions.user_ids)
    return _report(bundle, config, title, others, groups, dataset=dataset, progress=progress)


def _report(
    bundle: Bundle,
    config: EvaluationConfig,
    title: str | None,
    others: Sequence[System],
    groups: UserLabels = NO_LABELS,
    *,
    dataset: Dataset | None,
    progress: Progress | None,
) -> Report:
    ranking = _score_ranking(bundle, others, groups, config, progress)
    images_root = dataset.images_root if dataset else None
    photos = _score_photos(bundle, dataset)
    split = bundle.split_us if "ranking" in bundle.parts else None
    split_time = from_us(split).isoformat() if isinstance(split, int) else None
    return Report(
        title=bundle.version if title is None else title,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle_version=bundle.version,
        split_time=split_time,
        sizes={"items": len(bundle.items), **ranking.sizes, **photos.sizes},
        left_out=(*bundle.left_out, *ranking.left_out),
        weights=weights_of(bundle),
        ranks_by=ranks_by(bundle),
        identifies=bundle.identification.sentence() if "identification" in bundle.parts else "",
        rules=bundle.rules.without_exploration().summary(),
        rankings=ranking.tables,
        offers=ranking.offers,
        probabilities=ranking.probabilities,
        retrieval=photos.retrieval,
        classification=photos.classification,
        quarantine=_quarantine(dataset),
        gallery=regular_users(bundle, images_root) if dataset and split is not None else (),
        failures=[
            failure
            for queries, answered in ranking.answers[:1]
            for failure in failures(bundle, queries, answered, images_root)
        ],
    )


def weights_of(bundle: Bundle) -> list[str]:
    """Return which weights the towers began with and why, their licence, and what runs on a CPU.

    Empty for bundles of releases that did not record it.
    """
    began = [
        f"the {tower} tower began with {origin.sentence() if origin else 'random weights'}"
        for tower, origin in bundle.weights.items()
    ]
    said = [one.sentence() for one in (bundle.text_start, bundle.served_tower) if one is not None]
    return [*began, *said]


def ranks_by(bundle: Bundle) -> list[str]:
    """Return what was chosen to rank and by how much, one sentence per scope.

    Empty for a bundle without ranking, or with one ranker that the configuration named.
    """
    asked = {"all": "all items", "new": "items that a user does not have"}
    trials = bundle.choice.get("trials", ())
    found = []
    for scope, items in asked.items():
        ndcg = {one["name"]: one["ndcg"] for one in trials if one["scope"] == scope}
        simple = [name for name in ndcg if name in SIMPLE]
        if simple:
            chosen, best = bundle.choice[scope], max(simple, key=lambda name: ndcg[name])
            found.append(
                f"{items}: {chosen}, with NDCG@10 {ndcg[chosen]:.3f} on the last window before the "
                f"split; the best simple recommender there, {best}, has {ndcg[best]:.3f}"
            )
    return found


class _Ranking(NamedTuple):
    """Ranking figures, and what of them is missing and why."""

    tables: Sequence[RankingTable] = ()
    answers: Sequence[tuple[Queries, Answered]] = ()
    sizes: Mapping[str, int] = {}
    left_out: Sequence[str] = ()
    offers: Offers | None = None
    probabilities: Sequence[ProbabilityRow] = ()


def _score_ranking(
    bundle: Bundle,
    others: Sequence[System],
    groups: UserLabels,
    config: EvaluationConfig,
    progress: Progress | None,
) -> _Ranking:
    if "ranking" not in bundle.parts or bundle.split_us is None:
        return _Ranking()
    sizes = {"users": bundle.interactions.n_users, "events": len(bundle.interactions)}
    try:
        ranked = rank_systems(
            bundle,
            others,
            scopes=config.scopes,
            ks=config.k,
            exposure_by=config.exposure_by,
            user_labels=groups,
            progress=progress,
        )
    except LeakageError:
        raise
    except DataError as error:  # without anybody to score, the rest of the report still stands
        return _Ranking(sizes=sizes, left_out=[f"ranking's figures: {error}"])
    offers = report_offers(bundle, [queries for queries, _ in ranked.answers])
    probabilities: Sequence[ProbabilityRow] = ()
    left_out = list(ranked.left_out)
    try:
        probabilities = report_probabilities(bundle, config.scopes)
    except DataError as error:
        left_out.append(f"figures of the probabilities: {error}")
    return _Ranking(ranked.tables, ranked.answers, sizes, left_out, offers, probabilities)


class _Photos(NamedTuple):
    """Figures of the test photos."""

    retrieval: Sequence[RetrievalRow] = ()
    classification: Sequence[ClassificationRow] = ()
    sizes: Mapping[str, int] = {}


def _score_photos(bundle: Bundle, dataset: Dataset | None) -> _Photos:
    if dataset is None or dataset.photos is None or dataset.images_root is None:
        return _Photos()
    sizes = {"photos": len(dataset.photos)}
    test = dataset.photos.filter(split="test")
    if len(test) == 0 or "vision" not in bundle.parts:
        return _Photos(sizes=sizes)
    names_items = test["item_id"].count() > 0
    return _Photos(
        retrieval=[identify_photos(bundle, test, dataset.images_root)]
        if names_items and "identification" in bundle.parts
        else [],
        classification=classify_photos(bundle, test, dataset.images_root),
        sizes=sizes,
    )


def _quarantine(dataset: Dataset | None) -> list[QuarantineRow]:
    if dataset is None:
        return []
    return [
        QuarantineRow(report.table, rule, count, report.kept().get(rule, 0))
        for report in dataset.quarantine.reports
        for rule, count in report.counts().items()
    ]
