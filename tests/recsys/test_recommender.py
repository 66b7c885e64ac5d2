from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.answers import MAX_K, Event, Item, Result, SearchMode
from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.data.interactions import History, build_interactions
from recsys.data.synthetic import Shop
from recsys.data.timestamps import from_us
from recsys.errors import InvalidArgumentError, InvalidImageError
from recsys.ranking.candidates import SOURCES
from recsys.recommender import Recommender
from recsys.schema import ItemSchema

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def recommender(tiny_bundle: Path) -> Recommender:
    return Recommender(Bundle(tiny_bundle))


@pytest.fixture
def user(recommender: Recommender) -> str:
    """A user with a history of middling length."""
    interactions = recommender.bundle.interactions
    counts = np.bincount(interactions.user_rows, minlength=interactions.n_users)
    return interactions.user_ids[int(np.argsort(counts)[len(counts) // 2])]


def ids(results: Iterable[Result]) -> list[str]:
    return [result.item_id for result in results]


def test_recommendations_are_the_best_of_the_full_ranking(
    recommender: Recommender, user: str
) -> None:
    results = recommender.recommend(user, now=NOW, explain=True)
    (scores,) = recommender.scores([user], now=NOW)
    best = np.argsort(-scores)[:10]
    assert ids(results) == [recommender.catalogue.item_ids[row] for row in best]
    assert [result.score for result in results] == pytest.approx(scores[best].tolist(), abs=1e-5)
    assert all(len(result.features) == 3 for result in results)
    assert results.bundle_version == recommender.version
    assert results.degraded == ()


def test_candidates_are_ranked_by_the_scores_of_the_full_ranking(
    recommender: Recommender, user: str
) -> None:
    candidates = recommender.catalogue.item_ids[10:30]
    results = recommender.rank(user, candidates, now=NOW)
    (scores,) = recommender.scores([user], now=NOW)
    assert sorted(ids(results)) == sorted(candidates)
    for result in results:
        wanted = float(scores[recommender.catalogue.row_of[result.item_id]])
        assert result.score == pytest.approx(wanted, abs=1e-5)
    assert [one.score for one in results] == sorted((one.score for one in results), reverse=True)


def events_of(recommender: Recommender, user_id: str, history: History) -> list[Event]:
    """Return a history as the events of a user, as callers pass them."""
    return [
        Event(
            user_id,
            recommender.catalogue.item_ids[row],
            recommender.kind_names[kind],
            from_us(time_us),
        )
        for row, kind, time_us in zip(*(part.tolist() for part in history), strict=True)
    ]


def same(one: History, other: History) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_replayed_events_give_the_bundled_history(recommender: Recommender, user: str) -> None:
    history = recommender.history(user)
    assert len(history.item_rows) > 2
    replayed = recommender.history("nobody", events_of(recommender, "nobody", history)[::-1])
    assert same(replayed, history)
    assert same(recommender.history(user, events_of(recommender, user, history)), history)


def test_a_history_is_that_of_training_with_its_repeats_and_its_order(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    basket = [bundle.items["item_id"][row] for row in (7, 3, 3, 5)]
    moment = datetime(2025, 6, 1, tzinfo=UTC)
    kinds = bundle.interactions.kind_names
    events = pl.DataFrame(
        {
            "user_id": "buyer",
            "item_id": basket * len(kinds),
            "timestamp": moment,
            "kind": [kind for kind in reversed(kinds) for _ in basket],
            "quantity": 1.0,
        }
    )
    bundle.interactions = build_interactions(events, bundle.items["item_id"].to_list())
    (trained,) = bundle.interactions.histories()
    recommender = Recommender(bundle)
    replayed = [Event("buyer", item, kinds[-1], moment) for item in basket]
    for live in ([], replayed):
        assert same(recommender.history("buyer", live), trained)
    later = Event("buyer", basket[0], kinds[0], moment + timedelta(microseconds=1))
    assert len(recommender.history("buyer", [later]).kinds) == len(trained.kinds) + 1


def test_a_live_purchase_counts_as_one_that_the_bundle_has(
    recommender: Recommender, tiny_bundle: Path, user: str
) -> None:
    bundle = Bundle(tiny_bundle)
    events = bundle.interactions
    last = int(np.flatnonzero(events.user_rows == events.user_ids.index(user))[-1])
    bundle.interactions = events.where(np.arange(len(events)) != last)
    shortened = Recommender(bundle)
    *_, latest = events_of(recommender, user, recommender.history(user))
    wanted = recommender.recommend(user, now=NOW)

    assert shortened.recommend(shortened.history(user, [latest]), now=NOW) == wanted
    assert shortened.recommend(user, now=NOW) != wanted


def test_live_events_of_others_unknown_items_and_unknown_kinds_are_left_out(
    recommender: Recommender,
) -> None:
    known = recommender.catalogue.item_ids[0]
    events = [
        Event("nobody", "nothing", "view", from_us(1)),
        Event("nobody", known, "no-such-kind", from_us(2)),
        Event("somebody", known, "view", from_us(3)),
        Event("nobody", known, "view", from_us(4)),
    ]
    assert recommender.history("nobody", events).timestamps_us.tolist() == [4]


def test_an_event_without_a_timestamp_happens_now(recommender: Recommender) -> None:
    event = Event("nobody", recommender.catalogue.item_ids[0], "view")
    before = datetime.now(UTC)
    (found_us,) = recommender.history("nobody", [event]).timestamps_us.tolist()
    assert before <= from_us(found_us) <= datetime.now(UTC)


def test_a_newcomer_gets_an_answer_that_says_so(recommender: Recommender) -> None:
    results = recommender.recommend("nobody", k=5, now=NOW)
    assert len(results) == 5
    assert {result.source for result in results} <= {"popular", "new"}


def test_what_is_excluded_or_filtered_is_not_recommended(
    recommender: Recommender, user: str
) -> None:
    history = recommender.history(user)
    first = recommender.recommend(user, k=1, now=NOW)[0].item_id
    seen = {recommender.catalogue.item_ids[row] for row in history.item_rows}
    n_items = len(recommender.catalogue)
    without = recommender.recommend(history, k=n_items, now=NOW, exclude=[first])
    assert first not in ids(without)
    unseen = recommender.recommend(history, k=n_items, now=NOW, exclude_seen=True)
    assert not seen & set(ids(unseen))
    top = recommender.catalogue.records([first])["category"][0][0]
    filtered = recommender.recommend(history, k=n_items, now=NOW, filters=Filters(category=(top,)))
    paths = recommender.catalogue.records(ids(filtered))["category"].to_list()
    assert {path[0] for path in paths} == {top}


def test_a_filter_that_nothing_passes_gives_an_empty_answer(recommender: Recommender) -> None:
    nothing = Filters(category=("No such category",))
    assert recommender.recommend("nobody", k=3, now=NOW, filters=nothing).results == ()
    assert recommender.search("lamp", k=3, filters=nothing).results == ()


def test_a_large_catalogue_ranks_the_best_offers_of_each_source(
    recommender: Recommender, tiny_bundle: Path, user: str
) -> None:
    few = Recommender(Bundle(tiny_bundle), rank_all_up_to=10, offers=dict.fromkeys(SOURCES, 40))
    whole = recommender.recommend(user, k=5, now=NOW)
    offered = few.recommend(user, k=5, now=NOW)
    assert len(offered) == 5
    assert len(set(ids(whole)) & set(ids(offered))) >= 3
    wanted = recommender.scores([user], now=NOW)[0, recommender.catalogue.rows(ids(offered))]
    assert [one.score for one in offered] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_offers_are_checked_and_0_turns_a_source_off(tiny_bundle: Path, user: str) -> None:
    off = dict.fromkeys(SOURCES, 0) | {"popular": 5}
    few = Recommender(Bundle(tiny_bundle), rank_all_up_to=10, offers=off)
    results = few.recommend(user, k=3, now=NOW, explain=True)
    assert {one.source for one in results} == {"popular"}
    assert all(one.reason and one.reason.kind == "popular" for one in results)
    with pytest.raises(InvalidArgumentError, match=r"got 'populer'; did you mean 'popular'\?"):
        Recommender(Bundle(tiny_bundle), offers={"populer": 5})


def test_nothing_is_similar_to_an_item_without_title_and_picture(recommender: Recommender) -> None:
    item = recommender.catalogue.records(recommender.catalogue.item_ids[:1])
    item = item.with_columns(item_id=pl.lit("bare"), title=None, image=None)
    recommender.add_embedded(item, np.zeros((1, recommender.catalogue.dim), dtype=np.float32))
    assert recommender.similar("bare", k=5).results == ()


def test_blanks_around_an_id_are_cut_off_everywhere(recommender: Recommender, user: str) -> None:
    item = recommender.catalogue.item_ids[3]
    assert recommender.similar(f" {item} ") == recommender.similar(item)
    assert recommender.recommend(f"{user} ", now=NOW) == recommender.recommend(user, now=NOW)
    assert ids(recommender.rank(user, [f" {item}"], now=NOW)) == [item]
    left = recommender.recommend(user, k=MAX_K, now=NOW, exclude=[f"{item} "])
    assert item not in ids(left)
    assert recommender.delete_items([f" {item}", item]).deleted == 1


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


def test_an_added_item_is_searchable_and_recommendable_at_once(
    recommender: Recommender, tiny_shop: Shop, user: str
) -> None:
    donor = (
        recommender.catalogue.records(recommender.catalogue.item_ids).drop_nulls("image").head(1)
    )
    picture = tiny_shop.images / donor["image"][0]
    fresh = donor.with_columns(item_id=pl.lit("fresh"), title=pl.lit("Quux zebra"))
    assert recommender.add_items(fresh, {"fresh": picture}).added == 1
    assert "fresh" in ids(recommender.search(image=picture, k=3))
    assert "fresh" in ids(recommender.search("quux zebra", k=3))
    assert "fresh" in ids(recommender.recommend(user, k=MAX_K, now=NOW))
    assert np.isfinite(recommender.rank(user, ["fresh"], now=NOW)[0].score)
    assert recommender.delete_items(["fresh"]).deleted == 1
    assert "fresh" not in ids(recommender.search(image=picture, k=100))


def test_an_added_item_has_the_embedding_of_its_words_and_picture(
    recommender: Recommender, tiny_shop: Shop
) -> None:
    picture = next(tiny_shop.images.rglob("*.jpg"))
    items = [Item("both", title="blue mug"), Item("words", title="blue mug"), Item("neither")]
    answer = recommender.add_items(items, {"both": str(picture), "neither": b""})
    assert (answer.added, answer.bundle_version) == (3, recommender.version)
    rows = recommender.catalogue.rows(["both", "words", "neither"])
    found = recommender.catalogue.embeddings[rows].numpy()
    queries = recommender.embedder.queries(["blue mug"] * 2, [picture.read_bytes(), None])
    np.testing.assert_allclose(found[:2], queries, atol=1e-5)
    assert not found[2].any()


def test_a_picture_that_is_not_an_image_adds_nothing(recommender: Recommender) -> None:
    with pytest.raises(InvalidImageError, match="image 1"):
        recommender.add_items([Item("a", title="mug"), Item("b")], {"b": b"no image"})
    assert "a" not in recommender.catalogue


def test_upserts_one_by_one_score_as_one_of_all_and_do_not_rebuild_what_is_known_of_items(
    tiny_bundle: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one, at_once = (Recommender(Bundle(tiny_bundle)) for _ in range(2))
    known = at_once.bundle.items.head(6)
    fresh = known.with_columns(item_id="new " + pl.col("item_id"), price=pl.col("price") * 2)
    changed = known.with_columns(price=pl.col("price") + 1, category=pl.lit(["A new one"]))
    items = ItemSchema.cast(pl.concat([changed, fresh]))
    embeddings = at_once.embedder.items(items, [None] * len(items))
    monkeypatch.delattr("recsys.ranking.catalogue_ranker.build_item_table")
    at_once.add_embedded(items, embeddings)
    for row in range(len(items)):
        one_by_one.add_embedded(items[row : row + 1], embeddings[row : row + 1])
    second = timedelta(seconds=1)
    events = [Event(user, item_id, "purchase", NOW - second) for item_id in fresh["item_id"]]
    scores, wanted = (
        one.scores([one.history(user, events)], now=NOW)[0] for one in (one_by_one, at_once)
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
    assert recommender.search("of the and", k=5, mode="lexical").results == ()
    with pytest.raises(ValueError, match="mode lexical must have words and no image"):
        recommender.search(None, b"picture", k=5, mode="lexical")


@pytest.mark.parametrize(
    "text", ["of the and", "?!", "\x00\x07", "лампа ランプ lamp", "zzzz", "x" * 1_000, "🌹"]
)
def test_odd_words_are_answered_by_their_vector(recommender: Recommender, text: str) -> None:
    assert len(recommender.search(text, k=5)) == 5


def test_a_deleted_item_is_found_by_neither_words_nor_vector(recommender: Recommender) -> None:
    item = recommender.bundle.items.drop_nulls("title").row(0, named=True)
    assert item["item_id"] in ids(recommender.search(item["title"], k=3))
    assert recommender.delete_items([item["item_id"], "nothing"]).deleted == 1
    assert recommender.delete_items([item["item_id"]]).deleted == 0
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


def test_the_text_form_of_a_category_filters_as_its_path(recommender: Recommender) -> None:
    path = next(path for path in recommender.bundle.items["category"] if len(path) > 1)
    for category in (path[0], " > ".join(path[:2])):
        wanted = Filters(category=tuple(category.split(" > ")))
        mask = recommender.catalogue.mask(Filters(category=category))
        assert mask.any()
        assert (mask == recommender.catalogue.mask(wanted)).all()
