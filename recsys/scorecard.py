"""Score a bundle offline: ranking beside baselines and ablations, photos, and text search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.catalogue import Filters
from recsys.data.interactions import Interactions, Ints
from recsys.data.splits import split_by_time
from recsys.errors import DataError
from recsys.evaluation.protocol import Scorer, SystemResult, evaluate
from recsys.evaluation.queries import Queries, Scope, build_queries
from recsys.models.baselines import EASE, IALS, ItemKNN, OwnPurchases, Popularity, RecentPopularity
from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender
from recsys.training.labels import item_labels, photo_labels

OURS = "vitrine"


def score_ranking_systems(
    bundle: Bundle,
    ablations: Mapping[str, Bundle],
    *,
    scopes: Sequence[Scope] = ("all", "new", "cold"),
    ks: Sequence[int] = (10, 20),
    progress: Callable[[str, int, int], None] = lambda system, done, total: None,
) -> list[SystemResult]:
    """Return what each system scores on the events after the bundle's split, scope by scope.

    Every system knows the events before the split and none after it. A scope that nobody can be
    asked about (no new items, say) is left out.

    Args:
        bundle: With its ranking part.
        ablations: Bundles of the same tables, trained on less.
        scopes: Which questions to ask.
        ks: Cut-offs of the metrics.
        progress: Told the system, users done and users in all.

    Raises:
        MissingPartError: If the bundle was trained without events.
        DataError: If there is nobody to ask in any scope.
    """
    bundle.require("ranking")
    questions = _questions(bundle, scopes)
    results = []
    for name, scorer in _scorers(bundle, ablations):
        for queries in questions:
            if name == "own purchases" and queries.scope != "all":
                continue  # it knows nothing of other items
            results.append(
                evaluate(
                    name,
                    scorer,
                    queries,
                    ks=ks,
                    progress=lambda done, total, name=name: progress(name, done, total),
                )
            )
    return results


def _questions(bundle: Bundle, scopes: Sequence[Scope]) -> list[Queries]:
    train, test = _split(bundle)
    offered = offered_items(bundle, train)
    questions = []
    reasons = []
    for scope in scopes:
        try:
            questions.append(
                build_queries(
                    train,
                    test,
                    now_us=_split_us(bundle),
                    scope=scope,
                    target_kinds=bundle.target_kinds,
                    candidates=offered,
                )
            )
        except DataError as error:
            reasons.append(str(error))
    if not questions:
        raise DataError("; ".join(reasons))
    return questions


def offered_items(bundle: Bundle, train: Interactions) -> NDArray[np.bool_]:
    """Return which items were on offer at the split (N,).

    Those created by then, and those of unknown age that somebody had met.
    """
    created = bundle.items["created_at"].dt.timestamp("us")
    met = np.bincount(train.item_rows, minlength=train.n_items) > 0
    by_age = (created <= _split_us(bundle)).fill_null(False).to_numpy()
    return np.where(created.is_null().to_numpy(), met, by_age)


def _split_us(bundle: Bundle) -> int:
    if bundle.split_us is None:
        raise DataError(f"bundle {bundle.version} has no test events: it was trained without any")
    return bundle.split_us


def _split(bundle: Bundle) -> tuple[Interactions, Interactions]:
    split = split_by_time(bundle.interactions, _split_us(bundle))
    return split.train, split.test


def _scorers(bundle: Bundle, ablations: Mapping[str, Bundle]) -> "list[tuple[str, Scorer]]":
    """Return every system by name, ours first."""
    train, _ = _split(bundle)
    split_us = _split_us(bundle)
    taken = train.of_kinds(bundle.target_kinds)
    ours = {OURS: bundle, **ablations}
    systems = [(name, recommender_scorer(one)) for name, one in ours.items()]
    baselines = (
        Popularity(),
        RecentPopularity(),
        ItemKNN(),
        EASE(),
        IALS(),
        OwnPurchases(),
    )
    for baseline in baselines:
        fitted = baseline.fit(taken, now_us=split_us)
        systems.append((fitted.name, fitted.scores))
    return systems


def recommender_scorer(bundle: Bundle) -> Scorer:
    """Return a scorer that asks the recommender as of the split, as the service would be asked."""
    split_us = _split_us(bundle)
    recommender = Recommender(bundle, as_of_us=split_us)
    user_ids = bundle.interactions.user_ids

    def scores(user_rows: Ints) -> NDArray[np.float32]:
        return np.stack(
            [
                recommender.scores(recommender.history(user_ids[row]), split_us).cpu().numpy()
                for row in user_rows
            ]
        )

    return scores


@dataclass(frozen=True)
class PhotoScores:
    """How well photos are understood; each entry has one 0 or 1 per photo (n,).

    Args:
        classified: Whether the tower's classifier is right, by category level; photos without a
            label at the level are left out.
        identified: Whether the product is among the first k candidates, by k; photos of products.
        known: Whether "in the catalogue" was said, photos of products.
    """

    classified: Mapping[str, NDArray[np.float64]]
    identified: Mapping[int, NDArray[np.float64]]
    known: NDArray[np.float64]


def score_photos(
    bundle: Bundle,
    photos: pl.DataFrame,
    images_root: Path,
    *,
    ks: Sequence[int] = (1, 5),
    progress: bool = False,
) -> PhotoScores:
    """Return how the bundle does on labelled photos.

    Args:
        bundle: With its vision and identification parts.
        photos: Table of ``PhotoSchema``, all rows of it.
        images_root: Folder that picture paths are relative to.
        ks: Candidates that count, for identification.
        progress: Show a bar.
    """
    bundle.require("vision")
    labels = photo_labels(photos, bundle.items, item_labels(bundle.items))
    paths = [images_root / image for image in photos["image"]]
    predicted = bundle.vision.predict(paths, progress=progress)
    classified = {}
    for name, truth in labels.indices.items():
        if name.startswith("category_") and (truth >= 0).any():
            best = predicted[name].argmax(axis=1)
            classified[name] = (best == truth)[truth >= 0].astype(np.float64)
    if "identification" not in bundle.parts:
        return PhotoScores(classified, {}, np.empty(0))
    identifier = ProductIdentifier(Recommender(bundle))
    of_products = photos.filter(pl.col("item_id").is_not_null())
    paths = [images_root / image for image in of_products["image"]]
    embedder = identifier.recommender.embedder
    embeddings = embedder.fuse(embedder.modalities(None, paths, progress=progress))
    answers = [identifier.identify_embedding(one, k=max(ks)) for one in embeddings]
    places = [
        next((i for i, one in enumerate(answer.candidates) if one.item_id == item_id), max(ks))
        for answer, item_id in zip(answers, of_products["item_id"], strict=True)
    ]
    return PhotoScores(
        classified,
        {k: (np.array(places) < k).astype(np.float64) for k in ks},
        np.array([answer.known for answer in answers], dtype=np.float64),
    )
