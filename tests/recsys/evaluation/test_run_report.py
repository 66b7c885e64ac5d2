from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.config import EvaluationConfig, TrainConfig
from recsys.data.interactions import Interactions
from recsys.data.synthetic import Shop
from recsys.data.timestamps import from_us
from recsys.errors import InvalidArgumentError, LeakageError
from recsys.evaluation.gallery import GALLERY_ITEMS, GALLERY_USERS
from recsys.evaluation.results import QuarantineRow, Report
from recsys.evaluation.run_report import evaluate, ranks_by, report_run
from recsys.evaluation.systems import rank_systems
from recsys.pipeline import Run, load_tables
from recsys.recommender import Recommender

QUICK = EvaluationConfig(scopes=("all",))


@pytest.fixture(scope="module")
def report(tiny_run: Run) -> Report:
    """The report of the run, in one scope."""
    return report_run(tiny_run, QUICK, title="Tiny")


@pytest.fixture(scope="module")
def alone(tiny_bundle: Path) -> Report:
    """The report of the bundle without its tables."""
    return evaluate(Bundle(tiny_bundle), QUICK, title="x")


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


def test_it_says_what_was_measured(report: Report, bundle: Bundle, tiny_shop: Shop) -> None:
    assert (report.title, report.bundle_version) == ("Tiny", bundle.version)
    assert datetime.fromisoformat(report.created_at).tzinfo is not None
    assert datetime.fromisoformat(str(report.split_time)) == tiny_shop.split
    users = pl.read_parquet(tiny_shop.events)["user_id"].n_unique()
    assert report.sizes == {
        "items": tiny_shop.n_items,
        "users": users,
        "events": tiny_shop.n_events,
        "photos": tiny_shop.n_photos,
    }
    assert list(report.left_out) == []


def test_the_ablations_and_the_timings_of_the_run_are_in_it(report: Report, tiny_run: Run) -> None:
    names = {row.name for row in report.rankings[0].systems if row.role == "ablation"}
    assert names == set(tiny_run.ablations) == {"text-only", "image-only"}
    found = [(one.stage, one.seconds, one.reused) for one in report.timings]
    assert found == [(stage.name, stage.seconds, stage.skipped) for stage in tiny_run.stages]


def test_the_test_photos_are_measured(report: Report, tiny_shop: Shop) -> None:
    photos = pl.read_parquet(tiny_shop.photos).filter(split="test")
    assert [(one.n_queries, one.n_candidates) for one in report.retrieval] == [
        (len(photos), tiny_shop.n_items)
    ]
    assert [one.target for one in report.classification] == [
        "category_1",
        "category_2",
        "category_3",
    ]


def test_the_gallery_shows_users_whom_the_split_divides(report: Report, tiny_shop: Shop) -> None:
    events = pl.read_parquet(tiny_shop.events)
    sides = [
        set(events.filter(side)["user_id"])
        for side in (
            pl.col("timestamp") < tiny_shop.split,
            pl.col("timestamp") >= tiny_shop.split,
        )
    ]
    shown = [user.user_id for user in report.gallery]
    assert len(set(shown)) == len(shown) == GALLERY_USERS
    assert set(shown) <= sides[0] & sides[1]


def test_where_nobody_can_be_asked_the_report_says_so_and_has_the_rest(
    tiny_bundle: Path, tiny_run: Run
) -> None:
    bundle = Bundle(tiny_bundle)
    bundle.split_us = int(bundle.interactions.timestamps_us[-1]) + 1
    report = evaluate(bundle, EvaluationConfig(), title="all", dataset=tiny_run.dataset)
    assert report.rankings == ()
    assert any(
        "ranking's figures: split must lie inside the events" in one for one in report.left_out
    )
    assert report.retrieval
    assert report.sizes["events"] == len(bundle.interactions)


def test_a_leaking_split_raises_in_a_report(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle(tiny_bundle)
    # Events after the split pass for earlier ones.
    monkeypatch.setattr(Interactions, "before", lambda self, time_us: self)
    with pytest.raises(LeakageError):
        evaluate(bundle, QUICK, title="leaking")


def titles(tiny_shop: Shop, ids: list[str]) -> list[str]:
    items = pl.read_parquet(tiny_shop.items)
    known = dict(zip(items["item_id"], items["title"], strict=True))
    return [known[item_id] or item_id for item_id in ids]


def test_a_history_is_the_last_distinct_items_before_the_split_latest_first(
    report: Report, tiny_shop: Shop
) -> None:
    events = pl.read_parquet(tiny_shop.events).filter(pl.col("timestamp") < tiny_shop.split)
    for user in report.gallery:
        own = events.filter(user_id=user.user_id).sort("timestamp")
        latest: list[str] = []
        for item_id in own["item_id"].to_list()[::-1]:
            if item_id not in latest:
                latest.append(item_id)
        assert [item.title for item in user.history] == titles(tiny_shop, latest[:GALLERY_ITEMS])
        assert not any(item.taken for item in user.history)


def test_recommendations_are_those_of_the_split_and_marked_where_taken_later(
    report: Report, bundle: Bundle, tiny_shop: Shop
) -> None:
    recommender = Recommender(bundle, as_of=bundle.split_us)
    later = pl.read_parquet(tiny_shop.events).filter(
        pl.col("timestamp") >= tiny_shop.split, pl.col("kind").is_in(["purchase", "cart"])
    )
    for user in report.gallery:
        results = recommender.recommend(
            user.user_id, k=GALLERY_ITEMS, now=from_us(bundle.split_us), explain=True
        )
        ids = [result.item_id for result in results]
        assert [item.title for item in user.recommended] == titles(tiny_shop, ids)
        taken = set(later.filter(user_id=user.user_id)["item_id"])
        assert [item.taken for item in user.recommended] == [one in taken for one in ids]
        for item, result in zip(user.recommended, results, strict=True):
            assert result.reason is not None
            assert item.note == result.reason.text


def test_items_are_shown_with_their_own_pictures(report: Report, tiny_shop: Shop) -> None:
    items = pl.read_parquet(tiny_shop.items)
    images = dict(zip(items["title"], items["image"], strict=True))
    shown = [item for user in report.gallery for item in (*user.history, *user.recommended)]
    shown = [item for item in shown if item.title in images]
    assert any(item.picture for item in shown)
    for item in shown:
        image = images[item.title]
        assert item.picture == ((tiny_shop.images / image).read_bytes() if image else None)


def test_the_gallery_is_of_the_bundles_items_whatever_order_the_tables_have_by_now(
    report: Report, bundle: Bundle, tiny_run: Run
) -> None:
    later = replace(tiny_run.dataset, items=tiny_run.dataset.items.reverse().head(40))
    again = evaluate(bundle, EvaluationConfig(scopes=("all",)), title="t", dataset=later)
    assert again.gallery == report.gallery


def test_test_photos_that_name_no_item_are_classified_and_not_identified(
    bundle: Bundle, tiny_run: Run
) -> None:
    photos = tiny_run.dataset.photos
    assert photos is not None
    unnamed = replace(
        tiny_run.dataset, photos=photos.with_columns(item_id=pl.lit(None, dtype=pl.String))
    )
    report = evaluate(bundle, EvaluationConfig(scopes=("all",)), title="t", dataset=unnamed)
    assert report.classification
    assert report.retrieval == []


def test_rows_that_were_left_out_are_counted_by_table_and_rule(
    bundle: Bundle, tiny_config: TrainConfig, tiny_shop: Shop, tmp_path: Path
) -> None:
    events = pl.read_parquet(tiny_shop.events)
    stray = events.head(2).with_columns(item_id=pl.lit("no-such-item"))
    pl.concat([events, stray]).write_parquet(tmp_path / "events.parquet")
    data = tiny_config.data.model_copy(update={"events": str(tmp_path / "events.parquet")})
    dataset = load_tables(tiny_config.model_copy(update={"data": data}))
    report = evaluate(bundle, QUICK, title="x", dataset=dataset)
    assert list(report.quarantine) == [QuarantineRow("events", "item_id|known", 2, 0)]


def test_without_tables_only_the_events_of_the_bundle_are_measured(alone: Report) -> None:
    assert set(alone.sizes) == {"items", "users", "events"}
    for part in (alone.gallery, alone.classification, alone.retrieval, alone.quarantine):
        assert list(part) == []
    assert {row.role for row in alone.rankings[0].systems} == {"ours", "baseline"}


def test_a_shop_without_photos_has_no_photo_tables(bundle: Bundle, tiny_run: Run) -> None:
    dataset = replace(tiny_run.dataset, photos=None)
    report = evaluate(bundle, QUICK, title="x", dataset=dataset)
    assert "photos" not in report.sizes
    assert list(report.classification) == list(report.retrieval) == []
    assert report.gallery


def test_photos_of_other_splits_are_counted_and_not_measured(bundle: Bundle, tiny_run: Run) -> None:
    assert tiny_run.dataset.photos is not None
    photos = tiny_run.dataset.photos.filter(pl.col("split") != "test")
    dataset = replace(tiny_run.dataset, photos=photos)
    report = evaluate(bundle, QUICK, title="x", dataset=dataset)
    assert report.sizes["photos"] == len(photos)
    assert list(report.classification) == list(report.retrieval) == []


def test_a_bundle_without_a_picture_tower_measures_no_photo(tiny_run: Run) -> None:
    bundle = Bundle(tiny_run.ablations["text-only"])
    report = evaluate(bundle, QUICK, title="x", dataset=tiny_run.dataset)
    assert list(report.classification) == list(report.retrieval) == []
    assert report.rankings


def test_the_same_bundle_has_the_same_numbers(bundle: Bundle, alone: Report) -> None:
    again = evaluate(bundle, QUICK, title="x")
    assert replace(again, created_at=alone.created_at) == alone


def test_progress_names_every_system_and_ends_with_every_user(bundle: Bundle) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def note(name: str, done: int, total: int) -> None:
        seen[name] = (done, total)

    report = evaluate(bundle, QUICK, title="x", progress=note)
    table = report.rankings[0]
    assert set(seen) == {row.name for row in table.systems}
    assert set(seen.values()) == {(table.n_users, table.n_users)}


def test_the_worst_failures_are_users_for_whom_the_best_baseline_is_further_ahead(
    alone: Report, bundle: Bundle, tiny_shop: Shop
) -> None:
    answers = rank_systems(bundle, scopes=("all",)).answers
    ((queries, answered),) = answers
    ours = answered[0][1]
    best = max(
        (one for role, one in answered if role == "baseline"),
        key=lambda one: one.estimates["ndcg@10"].mean,
    )
    losses = best.per_user["ndcg@10"] - ours.per_user["ndcg@10"]
    found = [one.theirs - one.ours for one in alone.failures]
    assert found == pytest.approx(sorted(losses, reverse=True)[: len(found)])
    assert 0 < len(found) <= GALLERY_USERS
    for one in alone.failures:
        assert one.system == best.name
        place = list(queries.user_rows).index(bundle.interactions.user_ids.index(one.user_id))
        rows = best.ranked[place][:GALLERY_ITEMS]
        ids = bundle.items["item_id"][rows.tolist()].to_list()
        assert [item.title for item in one.their_list] == titles(tiny_shop, ids)
        right = [row in queries.relevant[place] for row in rows]
        assert [item.taken for item in one.their_list] == right
        assert one.history
        assert one.right


def test_columns_to_count_what_is_shown_by_come_from_the_configuration(bundle: Bundle) -> None:
    config = EvaluationConfig(scopes=("all",), exposure_by=("price",))
    (table,) = evaluate(bundle, config).rankings
    assert [one.column for one in table.exposure] == ["price"]
    with pytest.raises(InvalidArgumentError, match="exposure_by must name columns"):
        evaluate(bundle, EvaluationConfig(scopes=("all",), exposure_by=("colour of the moon",)))


def test_a_shop_in_which_nobody_can_be_asked_gets_a_report_that_says_so(bundle: Bundle) -> None:
    assert bundle.split_us is not None
    interactions = bundle.interactions
    newest = np.unique(interactions.user_rows[interactions.timestamps_us >= bundle.split_us])
    late = interactions.timestamps_us >= bundle.split_us
    strangers = ~late & ~np.isin(interactions.user_rows, newest)
    bundle.interactions = interactions.where(late | strangers)
    report = evaluate(bundle, EvaluationConfig(), title="empty")
    assert report.rankings == ()
    assert any(one.startswith("ranking's figures: ") and "user" in one for one in report.left_out)


def test_a_report_says_what_ranks_and_by_how_much(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    trials = {"trees": 0.3, "EASE": 0.2, "popularity": 0.1}
    bundle.choice = {
        "all": "trees",
        "new": "EASE",
        "trials": [
            {"scope": scope, "name": name, "ndcg": ndcg / factor}
            for scope, factor in (("all", 1), ("new", 2))
            for name, ndcg in trials.items()
        ],
    }
    assert ranks_by(bundle) == [
        "all items: trees, with NDCG@10 0.300 on the last window before the split; the best simple "
        "recommender there, EASE, has 0.200",
        "items that a user does not have: EASE, with NDCG@10 0.100 on the last window before the "
        "split; the best simple recommender there, EASE, has 0.100",
    ]
    bundle.choice = {}
    assert ranks_by(bundle) == []
