from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.answers import SearchMode
from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.data.interactions import EMPTY_HISTORY, build_interactions
from recsys.data.synthetic import Shop
from recsys.errors import InvalidImageError, UnknownItemError
from recsys.recommender import MAX_K, Event, Recommender
from recsys.schema import ItemSchema

NOW = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)


@pytest.fixture
def recommender(tiny_bundle: Path) -> Recommender:
    return Recommender(Bundle(tiny_bundle))


@pytest.fixture
def user(recommender: Recommender) -> str:
    """A user with a history of middling length."""
    interactions = recommender.bundle.interactions
    counts = np.bincount(interactions.user_rows, minlength=interactions.n_users)
    return interactions.user_ids[int(np.argsort(counts)[len(counts) // 2])]


def ids(results: list) -> list[str]:
    return [result.item_id for result in results]


def test_recommendations_are_the_best_of_the_full_ranking(
    recommender: Recommender, user: str
) -> None:
    history = recommender.history(user)
    results = recommender.recommend(history, k=10, now_us=NOW, explain=True)
    scores = recommender.scores(history, NOW)
    best = scores.topk(10)
    assert ids(results) == [recommender.catalogue.item_ids[row] for row in best.indices]
    assert [result.score for result in results] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert all(len(result.features) == 3 for result in results)


def test_candidates_are_ranked_by_the_scores_of_the_full_ranking(
    recommender: Recommender, user: str
) -> None:
    history = recommender.history(user)
    candidates = recommender.catalogue.item_ids[10:30]
    results = recommender.rank(history, candidates, now_us=NOW)
    scores = recommender.scores(history, NOW)
    assert sorted(ids(results)) == sorted(candidates)
    for result in results:
        wanted = float(scores[recommender.catalogue.row_of[result.item_id]])
        assert result.score == pytest.approx(wanted, abs=1e-5)
    assert [one.score for one in results] == sorted((one.score for one in results), reverse=True)


def test_a_replayed_history_scores_as_the_bundled_one(recommender: Recommender, user: str) -> None:
    history = recommender.history(user)
    events = [
        Event(recommender.catalogue.item_ids[row], recommender.kind_names[kind], time_us)
        for row, kind, time_us in zip(*history, strict=True)
    ]
    replayed = recommender.history("nobody", events[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(history, replayed, strict=True))
    both = recommender.history(user, events)  # an event told twice counts once
    assert all(np.array_equal(a, b) for a, b in zip(history, both, strict=True))


def test_a_history_is_that_of_training_with_its_repeats_and_its_order(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    basket = [bundle.items["item_id"][row] for row in (7, 3, 3, 5)]
    moment = datetime(2025, 6, 1, tzinfo=UTC)
    told = bundle.interactions.kind_names
    events = pl.DataFrame(
        {
            "user_id": "buyer",
            "item_id": basket * len(told),
            "timestamp": moment,
            "kind": [kind for kind in reversed(told) for _ in basket],
            "quantity": 1.0,
        }
    )
    bundle.interactions = build_interactions(events, bundle.items["item_id"].to_list())
    (trained,) = bundle.interactions.histories()
    recommender = Recommender(bundle)
    replayed = [Event(item, told[-1], int(moment.timestamp() * 1e6)) for item in basket]
    for live in ([], replayed):
        found = recommender.history("buyer", live)
        assert all(np.array_equal(a, b) for a, b in zip(found, trained, strict=True))
    later = Event(basket[0], told[0], int(moment.timestamp() * 1e6) + 1)
    assert len(recommender.history("buyer", [later]).kinds) == len(trained.kinds) + 1
    # Of one moment, the bundle's order is kept whatever the live events' own.
    newcomer = recommender.history("nobody", replayed)
    assert newcomer.item_rows.tolist() == sorted(
        {recommender.catalogue.row_of[item] for item in basket},
        key=recommender.catalogue.item_ids.__getitem__,
    )


def test_a_live_purchase_changes_the_answer(recommender: Recommender, user: str) -> None:
    before = recommender.recommend(recommender.history(user), k=10, now_us=NOW)
    event = Event(before[-1].item_id, "purchase", NOW - 1_000_000)
    after = recommender.recommend(recommender.history(user, [event]), k=10, now_us=NOW)
    assert [(r.item_id, r.score) for r in before] != [(r.item_id, r.score) for r in after]


def test_live_events_of_unknown_items_and_kinds_are_left_out(recommender: Recommender) -> None:
    known = recommender.catalogue.item_ids[0]
    events = [Event("nothing", "view", 1), Event(known, "no-such-kind", 2), Event(known, "view", 3)]
    assert recommender.history("nobody", events).timestamps_us.tolist() == [3]


def test_a_newcomer_gets_an_answer_that_says_so(recommender: Recommender) -> None:
    results = recommender.recommend(recommender.history("nobody"), k=5, now_us=NOW)
    assert len(results) == 5
    assert {result.source for result in results} <= {"popular", "new"}


def test_what_is_excluded_or_filtered_is_not_recommended(
    recommender: Recommender, user: str
) -> None:
    history = recommender.history(user)
    first = recommender.recommend(history, k=1, now_us=NOW)[0].item_id
    seen = {recommender.catalogue.item_ids[row] for row in history.item_rows}
    n_items = len(recommender.catalogue)
    without = recommender.recommend(history, k=n_items, now_us=NOW, exclude=[first])
    assert first not in ids(without)
    unseen = recommender.recommend(history, k=n_items, now_us=NOW, exclude_seen=True)
    assert not seen & set(ids(unseen))
    top = recommender.catalogue.records([first])["category"][0][0]
    filtered = recommender.recommend(
        history, k=n_items, now_us=NOW, filters=Filters(category=(top,))
    )
    paths = recommender.catalogue.records(ids(filtered))["category"].to_list()
    assert {path[0] for path in paths} == {top}


def test_a_filter_that_nothing_passes_gives_an_empty_answer(recommender: Recommender) -> None:
    nothing = Filters(category=("No such category",))
    history = recommender.history("nobody")
    assert recommender.recommend(history, k=3, now_us=NOW, filters=nothing) == []
    assert recommender.search("lamp", k=3, filters=nothing) == []


def test_a_large_catalogue_ranks_the_best_offers_of_each_source(
    recommender: Recommender, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = recommender.history(user)
    whole = recommender.recommend(history, k=5, now_us=NOW)
    monkeypatch.setattr("recsys.recommender.RANK_ALL_ITEMS", 10)
    monkeypatch.setattr("recsys.recommender.OFFERS_PER_SOURCE", 40)
    offered = recommender.recommend(history, k=5, now_us=NOW)
    assert len(offered) == 5
    assert len(set(ids(whole)) & set(ids(offered))) >= 3
    rows = recommender.catalogue.rows(ids(offered))
    wanted = recommender.scores(history, NOW)[rows].tolist()
    assert [one.score for one in offered] == pytest.approx(wanted, abs=1e-5)


def test_what_a_filter_leaves_is_offered_by_every_source(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = recommender.bundle.statistics
    least = np.argsort(statistics.recent_buyers)[:25]
    monkeypatch.setattr("recsys.recommender.RANK_ALL_ITEMS", 20)
    monkeypatch.setattr("recsys.recommender.OFFERS_PER_SOURCE", 2)
    mask = np.zeros(len(recommender.catalogue), dtype=bool)
    mask[least] = True
    offered = recommender._offers(EMPTY_HISTORY, mask, NOW)
    assert mask[offered].all()
    popular = statistics.recent_buyers[least].max()
    assert popular in statistics.recent_buyers[offered]
    newest = recommender.catalogue.created_us[least].max()
    assert newest in recommender.catalogue.created_us[offered]


def test_nothing_is_similar_to_an_item_without_title_and_picture(recommender: Recommender) -> None:
    item = recommender.catalogue.records(recommender.catalogue.item_ids[:1])
    item = item.with_columns(item_id=pl.lit("bare"), title=None, image=None)
    recommender.upsert(item, np.zeros((1, recommender.catalogue.dim), dtype=np.float32))
    assert recommender.similar("bare", k=5) == []


def test_similar_items_leave_out_the_item_itself(recommender: Recommender) -> None:
    item = recommender.catalogue.item_ids[3]
    results = recommender.similar(item, k=5)
    assert len(results) == 5
    assert item not in ids(results)


def test_a_title_finds_its_item_and_a_picture_finds_its_product(
    recommender: Recommender, tiny_shop: Shop
) -> None:
    items = recommender.catalogue.records(recommender.catalogue.item_ids)
    pictured = items.filter(pl.col("image").is_not_null() & pl.col("title").is_not_null()).head(20)
    hits = 0
    for item in pictured.iter_rows(named=True):
        picture = (tiny_shop.images / item["image"]).read_bytes()
        hits += item["item_id"] in ids(recommender.search(item["title"], picture, k=5))
    assert hits >= 15


def test_an_upserted_item_is_searchable_and_recommendable_at_once(
    recommender: Recommender, tiny_shop: Shop, user: str
) -> None:
    donor = (
        recommender.catalogue.records(recommender.catalogue.item_ids).drop_nulls("image").head(1)
    )
    fresh = ItemSchema.cast(donor.with_columns(item_id=pl.lit("fresh"), title=pl.lit("Quux zebra")))
    picture = (tiny_shop.images / donor["image"][0]).read_bytes()
    recommender.upsert(fresh, recommender.embedder.items(fresh, [picture]))
    assert "fresh" in ids(recommender.search(None, picture, k=3))
    history = recommender.history(user)
    assert "fresh" in ids(recommender.recommend(history, k=MAX_K, now_us=NOW))
    assert np.isfinite(recommender.rank(history, ["fresh"], now_us=NOW)[0].score)
    assert recommender.delete(["fresh"]) == 1
    assert "fresh" not in ids(recommender.search(None, picture, k=100))


def test_upserts_one_by_one_score_as_one_of_all_and_do_not_rebuild_what_is_known_of_items(
    tiny_bundle: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one, at_once = (Recommender(Bundle(tiny_bundle)) for _ in range(2))
    known = at_once.bundle.items.head(6)
    fresh = known.with_columns(item_id="new " + pl.col("item_id"), price=pl.col("price") * 2)
    changed = known.with_columns(price=pl.col("price") + 1, category=pl.lit(["A new one"]))
    items = ItemSchema.cast(pl.concat([changed, fresh]))
    embeddings = at_once.embedder.items(items, [None] * len(items))
    monkeypatch.delattr("recsys.recommender.build_item_table")
    at_once.upsert(items, embeddings)
    for row in range(len(items)):
        one_by_one.upsert(items[row : row + 1], embeddings[row : row + 1])
    events = [Event(item_id, "purchase", NOW - 1_000_000) for item_id in fresh["item_id"]]
    scores, wanted = (
        one.scores(one.history(user, events), NOW).numpy() for one in (one_by_one, at_once)
    )
    assert len(scores) == len(at_once.bundle.items) + len(fresh)
    np.testing.assert_array_equal(scores, wanted)


def test_a_query_has_the_same_embedding_in_every_batch(
    recommender: Recommender, tiny_shop: Shop
) -> None:
    picture = next(tiny_shop.images.rglob("*.jpg")).read_bytes()
    texts = ["lamp", None, "a nordic chair", "x " * 40]
    images = [None, picture, picture, None]
    together = recommender.embedder.queries(texts, images)
    for row, (text, image) in enumerate(zip(texts, images, strict=True)):
        assert np.allclose(recommender.embedder.query(text, image), together[row], atol=1e-5)


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_a_search_under_a_filter_returns_k_where_k_exist(
    recommender: Recommender, mode: SearchMode
) -> None:
    catalogue = recommender.catalogue
    paths = catalogue.records(catalogue.item_ids)["category"].to_list()
    rarest = min(Counter(tuple(path) for path in paths if path).items(), key=lambda one: one[1])
    filters = Filters(category=rarest[0])
    results = recommender.search("something else entirely", k=rarest[1], filters=filters, mode=mode)
    assert len(set(ids(results))) == rarest[1]


def test_a_lexical_search_answers_what_has_the_words(recommender: Recommender) -> None:
    items = recommender.bundle.items.filter(pl.col("title").is_not_null())
    title = items["title"][0]
    best = recommender.search(title, k=MAX_K, mode="lexical")[0]
    assert recommender.catalogue.records([best.item_id])["title"][0] == title
    assert recommender.search("of the and", k=5, mode="lexical") == []
    with pytest.raises(ValueError, match="mode lexical must have words and no picture"):
        recommender.search(None, b"picture", k=5, mode="lexical")


@pytest.mark.parametrize(
    "text", ["of the and", "?!", "\x00\x07", "лампа ランプ lamp", "zzzz", "x" * 1_000, "🌹"]
)
def test_odd_words_are_answered_by_their_vector(recommender: Recommender, text: str) -> None:
    assert len(recommender.search(text, k=5)) == 5


def test_a_deleted_item_is_found_by_neither_words_nor_vector(recommender: Recommender) -> None:
    item = recommender.bundle.items.drop_nulls("title").row(0, named=True)
    assert item["item_id"] in ids(recommender.search(item["title"], k=3))
    assert recommender.delete([item["item_id"], "nothing"]) == 1
    assert recommender.delete([item["item_id"]]) == 0
    for mode in ("hybrid", "vector", "lexical"):
        assert item["item_id"] not in ids(recommender.search(item["title"], k=MAX_K, mode=mode))


def test_an_approximate_recommender_answers_nearly_as_the_exact_one(
    recommender: Recommender, tiny_bundle: Path
) -> None:
    approximate = Recommender(Bundle(tiny_bundle), exact_up_to=10)
    approximate.prepare_search()
    titles = recommender.bundle.items["title"].drop_nulls().to_list()[:20]
    shared = [
        len(
            {*ids(recommender.search(title, k=5, mode="vector"))}
            & {*ids(approximate.search(title, k=5, mode="vector"))}
        )
        for title in titles
    ]
    assert sum(shared) >= 95  # of 100


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_range_is_refused_everywhere(recommender: Recommender, k: int) -> None:
    message = rf"k must be between 1 and {MAX_K}, got {k}"
    history = recommender.history("nobody")
    with pytest.raises(ValueError, match=message):
        recommender.recommend(history, k=k, now_us=NOW)
    with pytest.raises(ValueError, match=message):
        recommender.similar(recommender.catalogue.item_ids[0], k=k)
    with pytest.raises(ValueError, match=message):
        recommender.search("lamp", k=k)


def test_unknown_items_are_named(recommender: Recommender) -> None:
    with pytest.raises(UnknownItemError, match=r"got unknown \['nothing'\]"):
        recommender.similar("nothing", k=1)
    with pytest.raises(UnknownItemError, match=r"got unknown \['nothing'\]"):
        recommender.rank(recommender.history("nobody"), ["nothing"], now_us=NOW)


@pytest.mark.parametrize(("text", "image"), [(None, None), ("", b""), ("   ", None)])
def test_an_empty_query_is_refused(recommender: Recommender, text: str, image: bytes) -> None:
    with pytest.raises(ValueError, match="must have text or image bytes, got neither"):
        recommender.search(text, image, k=1)


def test_a_query_that_is_too_long_is_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="at most 1000 characters, got 1001"):
        recommender.search("x" * 1001, k=1)


def test_bytes_that_are_no_picture_are_refused(recommender: Recommender) -> None:
    with pytest.raises(InvalidImageError):
        recommender.search(image=b"not a picture", k=1)


def test_no_candidates_are_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        recommender.rank(recommender.history("nobody"), [], now_us=NOW)
