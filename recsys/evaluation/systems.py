"""Score a bundle offline: ranking beside baselines and ablations, and photos."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.data.arrays import Ints
from recsys.data.interactions import Moment, last_moment
from recsys.data.progress import Progress
from recsys.data.splits import TimeSplit, check_held_out, split_by_time
from recsys.errors import DataError, InvalidArgumentError
from recsys.evaluation.bootstrap import estimate
from recsys.evaluation.facts import item_facts
from recsys.evaluation.lists import ForeignList
from recsys.evaluation.probabilities import score_probabilities
from recsys.evaluation.protocol import (
    MakeList,
    Ranking,
    Scorer,
    SystemResult,
    UsersDone,
    rank_queries,
    score_ranking,
)
from recsys.evaluation.queries import (
    Queries,
    Scope,
    build_queries,
    describe_sample,
    sample_users,
)
from recsys.evaluation.results import (
    ClassificationRow,
    RankingTable,
    RetrievalRow,
    Role,
)
from recsys.evaluation.slices import NO_LABELS, UserLabels, label_users
from recsys.evaluation.tables import Answered, ranking_table
from recsys.identifier import ProductIdentifier
from recsys.ranking.baselines import (
    EASE,
    IALS,
    Baseline,
    ContentKNN,
    ItemKNN,
    OwnPurchases,
    Popularity,
    RecentPopularity,
)
from recsys.ranking.reranking import Reranker
from recsys.ranking.statistics import EASE_MAX_ITEMS
from recsys.recommender import Recommender
from recsys.rules import NO_RULES
from recsys.training.cuts import on_offer
from recsys.training.labels import photo_categories
from vision.hierarchy import choose_classes, find_category_paths, reconcile_levels

OURS = "vitrine"
# Users times items that a report lets every system score. Where there are more, users are drawn.
MAX_SCORES = 500_000_000
WITHOUT_EASE = "the EASE baseline: more than"


class Ranked(NamedTuple):
    """Tables of the systems' scores, and what they leave out."""

    tables: list[RankingTable]
    answers: list[tuple[Queries, Answered]]  # what each table is made of
    left_out: list[str]  # sentences for the report


class System(NamedTuple):
    """Something that ranks.

    Args:
        role: What it is compared as.
        name: Name in tables.
        scorer: Scores of the whole catalogue.
        list: Places of a list, where those are the scores.
        discovery: Scores where the user's own items are left out; None takes the same.
        make_list: Function from ranked items to those that are shown; None shows the first.
    """

    role: Role
    name: str
    scorer: Scorer
    list: ForeignList | None = None
    discovery: Scorer | None = None
    make_list: MakeList | None = None


def rank_systems(
    bundle: Bundle,
    others: Sequence[System] = (),
    *,
    scopes: Sequence[Scope] = ("all", "new", "cold"),
    ks: Sequence[int] = (10, 20),
    exposure_by: Sequence[str] = (),
    user_labels: UserLabels = NO_LABELS,
    ease_max_items: int = EASE_MAX_ITEMS,
    progress: Progress | None = None,
) -> Ranked:
    """Return one table for each scope: each system's scores on events after the bundle's split.

    Every system knows the events before the split and none after it. A scope without any
    query (no item is new, say) is left out. Where users times items are more than ``MAX_SCORES``, a
    random sample of the users is asked, the same by each system.

    Args:
        bundle: A bundle with its ranking part.
        others: Systems to compare with, beside the baselines; see ``recsys.evaluation.others``.
        scopes: Scopes of the queries.
        ks: Cut-offs of the metrics.
        exposure_by: Item columns or attributes by which it is counted what is shown.
        user_labels: Label of each user of the bundle, by what quality is shown by beside what is
            counted; see ``recsys.evaluation.slices.read_users``.
        ease_max_items: Largest number of items with events for which EASE, whose time grows with
            the cube of it, is among the baselines.
        progress: Called with the system, the users that are done, and all users.

    Raises:
        MissingPartError: If the bundle was trained without events.
        DataError: If no scope has a query.
        InvalidArgumentError: If two systems have one name, or ``exposure_by`` names a column that
            the items lack.
    """
    bundle.require("ranking")
    every = bundle_queries(bundle, scopes)
    query_sets = sample_users(every, max(1, MAX_SCORES // len(bundle.items)))
    before = bundle_split(bundle).train
    taken = before.of_kinds(bundle.target_kinds)
    facts = item_facts(bundle, taken, exposure_by)
    results: list[list[tuple[Role, SystemResult]]] = [[] for _ in query_sets]
    with_ease = len(np.unique(bundle.interactions.item_rows)) <= ease_max_items
    systems = _systems(bundle, others, with_ease=with_ease)
    _check_names(systems)
    for system in systems:
        report = partial(progress, system.name) if progress else None
        rankings = _rankings(system, query_sets, ks, report)
        for queries, found, of_scope in zip(query_sets, rankings, results, strict=True):
            result = score_ranking(system.name, found.rows, queries, ks=ks, areas=found.areas)
            if system.list is not None:
                result = replace(
                    result,
                    counts=system.list.counts(queries, max(ks)),
                    probabilities=score_probabilities(system.list, queries),
                )
            of_scope.append((system.role, result))
    return Ranked(
        [
            ranking_table(
                queries,
                answered,
                facts=facts,
                user_labels=label_users(queries, before, taken, facts, user_labels),
            )
            for queries, answered in zip(query_sets, results, strict=True)
        ],
        list(zip(query_sets, results, strict=True)),
        [
            *([] if with_ease else [f"{WITHOUT_EASE} {ease_max_items:,} items have events"]),
            *describe_sample(every, query_sets),
        ],
    )


def _rankings(
    system: System, query_sets: list[Queries], ks: Sequence[int], progress: UsersDone | None
) -> list[Ranking]:
    """Return the rankings of each set of queries, by the scorer of its scope."""
    discovering = [system.discovery is not None and one.scope == "new" for one in query_sets]
    found: dict[int, Ranking] = {}
    for scorer, new in ((system.scorer, False), (system.discovery, True)):
        chosen = [number for number, one in enumerate(discovering) if one is new]
        if scorer is not None and chosen:
            sets = [query_sets[number] for number in chosen]
            ranked = rank_queries(
                scorer, sets, ks=ks, progress=progress, make_list=system.make_list
            )
            found |= dict(zip(chosen, ranked, strict=True))
    return [found[number] for number in range(len(query_sets))]


def _system(role: Role, name: str, scorers: "Scorers") -> System:
    return System(
        role, name, scorers.scorer, discovery=scorers.discovery, make_list=scorers.make_list
    )


def _check_names(systems: Sequence[System]) -> None:
    names = [system.name for system in systems]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidArgumentError(
            f"every system must have a name of its own, got several called {repeated}; rename one"
        )


def _systems(bundle: Bundle, others: Sequence[System], *, with_ease: bool) -> list[System]:
    baselines: list[Baseline] = [
        Popularity(),
        RecentPopularity(),
        ItemKNN(),
        IALS(),
        OwnPurchases(),
        ContentKNN(bundle.item_embeddings),
    ]
    if with_ease:
        baselines.append(EASE(max_items=EASE_MAX_ITEMS))
    return [
        _system("ours", OURS, recommender_scorers(bundle)),
        *others,
        *baseline_systems(bundle, baselines),
    ]


def baseline_systems(bundle: Bundle, baselines: Sequence[Baseline]) -> list[System]:
    """Return baselines as systems that know the events before a bundle's split.

    Args:
        bundle: A bundle with its ranking part.
        baselines: Baselines, which are fitted.
    """
    train = bundle_split(bundle).train
    now_us = last_moment(split_moment(bundle), train)
    taken, held_out = train.of_kinds(bundle.target_kinds), bundle.held_out_users
    fitted = [one.fit(taken, now_us=now_us, held_out=held_out) for one in baselines]
    return [System("baseline", one.name, one.scores) for one in fitted]


class Scorers(NamedTuple):
    """How a recommender ranks the whole catalogue.

    Args:
        scorer: Scores of the whole catalogue.
        discovery: Scores where the user's own items are left out; None if they are the same.
        make_list: Function from ranked items to those that are shown; None shows the first.
    """

    scorer: Scorer
    discovery: Scorer | None
    make_list: MakeList | None = None


def recommender_scorers(bundle: Bundle) -> Scorers:
    """Return how the recommender ranks as of the split, as the service would rank then.

    Its rules make the lists that are shown, without their exploration.
    """
    split = split_moment(bundle)
    recommender = Recommender(bundle, as_of=split)
    moments = np.broadcast_to(np.asarray(split), (bundle.interactions.n_users,))
    user_ids = bundle.interactions.user_ids
    offered = on_offer(bundle.items, bundle.interactions, split)

    def scores(user_rows: Ints, *, discovery: bool = False) -> NDArray[np.float32]:
        users = [user_ids[row] for row in user_rows]
        now = moments[user_rows]
        return recommender.scores(users, now=now, mask=offered, discovery=discovery)

    same = bundle.held_out.discovery is bundle.held_out.ranker
    discovery = None if same else partial(scores, discovery=True)
    return Scorers(scores, discovery, list_maker(recommender, moments))


def list_maker(recommender: Recommender, moments: Ints) -> MakeList | None:
    """Return what makes lists by the rules of a recommender's bundle; None without rules.

    Args:
        recommender: What ranks, with its bundle's rules.
        moments: Moment of each user, microseconds UTC (U,).
    """
    rules = recommender.bundle.rules.without_exploration()
    if rules == NO_RULES:
        return None

    @lru_cache
    def reranker(now_us: int) -> Reranker:
        return recommender.ranker.reranker(rules, now_us)

    def make_list(user_row: int, rows: Ints, k: int) -> Ints:
        by_rules = reranker(int(moments[user_row]))
        rows = rows[by_rules.allowed[rows]]
        return rows[by_rules.order(rows, k).positions]

    return make_list


def bundle_queries(bundle: Bundle, scopes: Sequence[Scope]) -> list[Queries]:
    """Return the queries of each scope, from the events after the bundle's split.

    A scope without any query is left out.

    Raises:
        DataError: If no scope has a query.
    """
    split = bundle_split(bundle)
    query_sets, reasons = [], []
    for scope in scopes:
        try:
            queries = build_queries(
                split.train,
                split.test,
                now_us=split_moment(bundle),
                scope=scope,
                target_kinds=bundle.target_kinds,
                candidates=on_offer(bundle.items, split.train, split_moment(bundle)),
            )
        except DataError as error:
            reasons.append(str(error))
        else:
            query_sets.append(queries)
    if not query_sets:
        raise DataError("; ".join(reasons))
    return query_sets


def bundle_split(bundle: Bundle) -> TimeSplit:
    """Return the events before the split, and those that the bundle is tested by.

    Raises:
        DataError: If one side is empty.
        LeakageError: If users were held out from training and a test event is of another user.
    """
    split = split_by_time(bundle.interactions, split_moment(bundle))
    check_held_out(split.test, bundle.held_out_users)
    return split


def split_moment(bundle: Bundle) -> Moment:
    """Return the moment of the split of a bundle with a ranking part."""
    assert bundle.split_us is not None, "a bundle with a ranking part has a split"
    return bundle.split_us


def classify_photos(
    bundle: Bundle, photos: pl.DataFrame, images_root: Path, *, progress: bool = False
) -> list[ClassificationRow]:
    """Return the accuracy of the vision tower's classifiers, one row per category level.

    The levels' answers are made to agree along the category path; see ``vision.hierarchy``.

    Args:
        bundle: A bundle with its vision part.
        photos: Table of ``PhotoSchema``, of which every row counts.
        images_root: Folder that picture paths are relative to.
        progress: Whether to show a progress bar.
    """
    paths = [images_root / image for image in photos["image"]]
    levels = find_category_paths(bundle.vision.classes)
    probabilities = bundle.vision.predict_proba(paths, progress=progress)
    predicted = choose_classes(reconcile_levels(probabilities, levels), levels)
    labels = photo_categories(photos, bundle.items, bundle.vision.classes)
    rows = []
    for name, truth in labels.items():
        known = truth >= 0
        if not known.any():
            continue
        right = predicted[name][known] == truth[known]
        rows.append(
            ClassificationRow(
                target=name,
                n_photos=int(known.sum()),
                n_classes=len(bundle.vision.classes[name]),
                accuracy=estimate(right.astype(np.float64)),
                majority=float(np.bincount(truth[known]).max() / known.sum()),
            )
        )
    return rows


def identify_photos(
    bundle: Bundle, photos: pl.DataFrame, images_root: Path, *, progress: bool = False
) -> RetrievalRow:
    """Return how often the product on a photo is the first candidate, or among the first five.

    Args:
        bundle: A bundle with its identification part.
        photos: Table of ``PhotoSchema``, of which rows that name an item count.
        images_root: Folder that picture paths are relative to.
        progress: Whether to show a progress bar.
    """
    photos = photos.filter(pl.col("item_id").is_not_null())
    identifier = ProductIdentifier(Recommender(bundle))
    images = [images_root / image for image in photos["image"]]
    answers = identifier.identify_many(images, progress=progress)
    places = []
    for answer, item_id in zip(answers, photos["item_id"], strict=True):
        ids = [candidate.item_id for candidate in answer.candidates]
        places.append(ids.index(item_id) if item_id in ids else len(ids))
    top1, top5 = (estimate((np.array(places) < k).astype(np.float64)) for k in (1, 5))
    return RetrievalRow("photo → product", len(photos), len(bundle.items), top1, top5)
