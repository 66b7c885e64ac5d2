"""Fill the report of a bundle with everything that can be measured on it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from recsys.bundle import Bundle
from recsys.config import EvaluationConfig
from recsys.data.dataset import Dataset
from recsys.data.interactions import Ints
from recsys.errors import DataError, LeakageError
from recsys.evaluation.results import (
    GalleryItem,
    GalleryUser,
    QuarantineRow,
    Report,
    StageTiming,
)
from recsys.evaluation.systems import (
    Progress,
    classify_photos,
    identify_photos,
    rank_systems,
    too_large_for_ease,
)
from recsys.pipeline import Run
from recsys.ranking.statistics import EASE_MAX_ITEMS
from recsys.recommender import Recommender, Scored

GALLERY_USERS = 3
GALLERY_ITEMS = 6


def report_run(
    run: Run, config: EvaluationConfig, *, title: str, progress: Progress | None = None
) -> Report:
    """Return the report of a training run: that of its bundle, and how the run went."""
    report = report_bundle(
        Bundle(run.bundle),
        config,
        title=title,
        ablations={name: Bundle(path) for name, path in run.ablations.items()},
        dataset=run.dataset,
        progress=progress,
    )
    timings = [StageTiming(stage.name, stage.seconds, stage.skipped) for stage in run.stages]
    return replace(report, timings=timings)


def report_bundle(
    bundle: Bundle,
    config: EvaluationConfig,
    *,
    title: str,
    ablations: Mapping[str, Bundle] | None = None,
    dataset: Dataset | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return the report of a bundle.

    Args:
        bundle: What to measure.
        config: Scopes and cut-offs.
        title: What the report is called.
        ablations: Bundles of the same tables, trained on less, by name.
        dataset: The shop's tables; without them photos are not measured, for a bundle has none.
        progress: Told what is being scored and how far it is.
    """
    report = Report(
        title=title,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle_version=bundle.version,
        sizes={"items": len(bundle.items)},
        left_out=bundle.left_out,
    )
    if "ranking" in bundle.parts and bundle.split_us is not None:
        events = bundle.interactions
        report = replace(
            report,
            split_time=datetime.fromtimestamp(bundle.split_us / 1e6, UTC).isoformat(),
            sizes={**report.sizes, "users": events.n_users, "events": len(events)},
        )
        try:
            rankings = rank_systems(
                bundle, ablations or {}, scopes=config.scopes, ks=config.k, progress=progress
            )
        except LeakageError:
            raise
        except DataError as error:  # nobody to ask takes nothing from the bundle and its photos
            report = replace(report, left_out=(*report.left_out, f"ranking's figures: {error}"))
        else:
            left_out = (*report.left_out, *_left_out(bundle))
            report = replace(report, rankings=rankings, left_out=left_out)
    if dataset is None:
        return report
    counts = dataset.quarantine.counts()
    quarantine = [
        QuarantineRow(table, rule, count)
        for table, rules in counts.items()
        for rule, count in rules.items()
    ]
    report = replace(report, quarantine=quarantine)
    if "ranking" in bundle.parts:
        report = replace(report, gallery=_gallery(bundle, dataset))
    return _with_photos(report, bundle, dataset)


def _left_out(bundle: Bundle) -> list[str]:
    if not too_large_for_ease(bundle):
        return []
    return [f"the EASE baseline: more than {EASE_MAX_ITEMS:,} items have events"]


def _with_photos(report: Report, bundle: Bundle, dataset: Dataset) -> Report:
    if dataset.photos is None or dataset.images_root is None:
        return report
    test = dataset.photos.filter(split="test")
    sizes = {**report.sizes, "photos": len(dataset.photos)}
    if len(test) == 0 or "vision" not in bundle.parts:
        return replace(report, sizes=sizes)
    retrieval = []
    if "identification" in bundle.parts and test["item_id"].count() > 0:
        retrieval.append(identify_photos(bundle, test, dataset.images_root))
    classification = classify_photos(bundle, test, dataset.images_root)
    return replace(report, sizes=sizes, classification=classification, retrieval=retrieval)


def _gallery(bundle: Bundle, dataset: Dataset) -> list[GalleryUser]:
    """Return what a few users did before the split, what is recommended, and what they took."""
    assert bundle.split_us is not None, "a bundle with a ranking part has a split"
    recommender = Recommender(bundle, as_of_us=bundle.split_us)
    interactions = bundle.interactions
    taken = interactions.of_kinds(bundle.target_kinds)
    later = taken.between(bundle.split_us, int(interactions.timestamps_us[-1]) + 1).histories()
    users = []
    for user in _regulars(bundle):
        user_id = interactions.user_ids[user]
        history = recommender.history(user_id)
        last = list(dict.fromkeys(history.item_rows[::-1].tolist()))[:GALLERY_ITEMS]
        results = recommender.recommend(
            history, k=GALLERY_ITEMS, now_us=bundle.split_us, explain=True
        )
        rows = [recommender.catalogue.row_of[result.item_id] for result in results]
        recommended = [
            _item(bundle, dataset, row, _reason(result), row in later[user].item_rows)
            for row, result in zip(rows, results, strict=True)
        ]
        users.append(
            GalleryUser(user_id, [_item(bundle, dataset, row) for row in last], recommended)
        )
    return users


def _regulars(bundle: Bundle) -> Ints:
    """Return user rows spread over those with events on both sides of the split."""
    interactions = bundle.interactions
    assert bundle.split_us is not None, "a bundle with a ranking part has a split"
    before = np.unique(interactions.before(bundle.split_us).user_rows)
    after = np.unique(interactions.user_rows[interactions.timestamps_us >= bundle.split_us])
    both = np.intersect1d(before, after)
    return both[np.linspace(0, len(both) - 1, min(GALLERY_USERS, len(both))).astype(np.int64)]


def _reason(result: Scored) -> str:
    return ", ".join([result.source, *(name for name, _ in result.features)])


def _item(
    bundle: Bundle, dataset: Dataset, row: int, note: str = "", taken: bool = False
) -> GalleryItem:
    # The bundle's own table, for the dataset may be a later one with other rows.
    item = bundle.items.row(row, named=True)
    picture = None
    if item["image"] is not None and dataset.images_root is not None:
        file = Path(dataset.images_root / item["image"])
        picture = file.read_bytes() if file.is_file() else None
    return GalleryItem(item["title"] or item["item_id"], picture, note, taken)
