"""What the methods answer, over real gRPC, from a bundle whose behaviour is planted."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import numpy as np
import pytest

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.bundle import Bundle
from recsys.errors import InvalidArgumentError, InvalidImageError, UnknownItemError
from recsys.recommender import Recommender
from recsys.rules import Pin, Rules, Selection, Shift
from serving.client import Answer, AsyncClient, Event, Filters, Item, SearchMode
from serving.rpc.server import Service

NOW = datetime(2025, 6, 2, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def offline(shop: Any) -> Recommender:
    return Recommender(Bundle(shop.path))


def ids(answer: Answer) -> list[str]:
    return [result.item_id for result in answer.results]


async def test_recommendations_are_those_of_the_library(
    client: AsyncClient, offline: Recommender
) -> None:
    answer = await client.recommend("user-1", k=12, now=NOW, explain=True)
    expected = offline.recommend("user-1", k=12, now=NOW, explain=True)

    assert ids(answer) == [one.item_id for one in expected]
    np.testing.assert_allclose(
        [result.score for result in answer.results], [one.score for one in expected], atol=1e-5
    )
    for result, one in zip(answer.results, expected, strict=True):
        assert result.source == one.source
        assert result.reason == one.reason is not None
        assert [name for name, _ in result.features] == [name for name, _ in one.features]
    assert answer.results[0].features[0][0] == "max_similarity"
    assert answer.bundle_version == offline.version
    assert answer.degraded == ()


async def test_live_events_count_as_the_library_counts_them(
    client: AsyncClient, offline: Recommender
) -> None:
    seen = NOW - timedelta(days=1)
    await client.record_events([Event("user-1", "blue-lamp", "view", seen)])
    live = [Event("user-1", "blue-lamp", "view", seen)]
    candidates = offline.catalogue.item_ids[:6]

    answer = await client.rank("user-1", candidates, now=NOW)

    expected = offline.rank(offline.history("user-1", live), candidates, now=NOW)
    assert [(one.item_id, one.source) for one in answer.results] == [
        (one.item_id, one.source) for one in expected
    ]
    np.testing.assert_allclose(
        [one.score for one in answer.results], [one.score for one in expected], atol=1e-5
    )


async def test_a_recorded_event_changes_the_next_answer(client: AsyncClient) -> None:
    before = await client.recommend("newcomer", k=3)
    recorded = await client.record_events([Event("newcomer", "blue-lamp", "view")])
    after = await client.recommend("newcomer", k=3)

    assert (recorded.recorded, recorded.duplicates) == (1, 0)
    assert before.results[0].source == "popular"
    assert "blue-lamp" not in ids(before)
    assert after.results[0].item_id == "blue-lamp"
    assert after.results[0].source == "own_history"


async def test_an_event_sent_twice_counts_once(client: AsyncClient) -> None:
    event = Event("newcomer", "blue-lamp", "view", NOW)

    assert (await client.record_events([event, event])).duplicates == 1
    again = await client.record_events([event])
    assert (again.recorded, again.duplicates) == (0, 1)
    other_quantity = Event("newcomer", "blue-lamp", "view", NOW, quantity=2.0, value=9.5)
    assert (await client.record_events([other_quantity])).duplicates == 1


async def test_an_event_of_an_unknown_kind_is_stored_once_and_changes_no_answer(
    client: AsyncClient,
) -> None:
    before = await client.recommend("user-1", k=5, now=NOW)
    shown = Event("user-1", "blue-lamp", "impression", NOW, propensity=0.25, placement="home")

    stored = [await client.record_events([shown]) for _ in range(2)]

    assert [(one.recorded, one.duplicates) for one in stored] == [(1, 0), (0, 1)]
    assert await client.recommend("user-1", k=5, now=NOW + timedelta(hours=1)) == (
        await client.recommend("user-1", k=5, now=NOW + timedelta(hours=1), exclude=["unheard of"])
    )
    assert await client.recommend("user-1", k=5, now=NOW) == before


async def test_an_answer_as_of_an_earlier_time_does_not_know_later_events(
    client: AsyncClient,
) -> None:
    before = await client.recommend("user-2", k=5, now=NOW)
    await client.record_events([Event("user-2", "green-scarf", "view", NOW + timedelta(hours=1))])

    assert await client.recommend("user-2", k=5, now=NOW) == before
    assert await client.recommend("user-2", k=5, now=NOW + timedelta(hours=2)) != before


async def test_filters_and_exclusions_hold(client: AsyncClient) -> None:
    everything = await client.recommend("user-1", k=500, now=NOW)
    assert len(everything.results) == 11
    assert "blue-scarf" not in ids(everything)

    wanted = Filters(category=("home", "scarf"), available_only=False)
    scarves = await client.recommend("user-1", k=500, filters=wanted)
    assert sorted(ids(scarves)) == ["blue-scarf", "green-scarf", "red-scarf"]

    cheap_red = Filters(price_max=12, attributes={"colour": "red"})
    assert sorted(ids(await client.search("lamp", filters=cheap_red))) == [
        "red-chair",
        "red-lamp",
        "red-mug",
    ]
    dear = await client.similar("red-mug", filters=Filters(price_min=20))
    assert sorted(ids(dear)) == ["blue-chair"]

    rest = await client.recommend("user-1", k=500, exclude=["red-mug", "unheard of"])
    assert set(ids(everything)) - set(ids(rest)) == {"red-mug"}
    unseen = await client.recommend("user-1", k=500, exclude_seen=True)
    assert set(ids(everything)) - set(ids(unseen)) == {"red-lamp", "red-chair"}


async def test_rules_make_the_list_that_they_make_in_the_library(
    client: AsyncClient, offline: Recommender
) -> None:
    rules = Rules(
        diversity=0.4,
        pin=[Pin("green-chair", 2), Pin("red-mug", 3, until=NOW)],
        boost=[Shift(category="scarf", strength=4)],
        bury=[Shift(["blue-lamp"])],
        block=[Selection(["green-scarf"])],
        explore=0.5,
        seed=3,
    )

    answer = await client.recommend("user-1", k=5, now=NOW, rules=rules)

    expected = offline.recommend("user-1", k=5, now=NOW, rules=rules)
    assert ids(answer) == [one.item_id for one in expected]
    assert answer[1].item_id == "green-chair"
    assert [one.propensity for one in answer] == [one.propensity for one in expected]
    assert answer[1].propensity == 1 > answer[0].propensity
    plain = await client.recommend("user-1", k=5, now=NOW)
    assert ids(plain) == [one.item_id for one in offline.recommend("user-1", k=5, now=NOW)]
    assert {one.propensity for one in plain} == {1}


async def test_results_for_a_user_have_the_probabilities_of_the_library(
    client: AsyncClient, offline: Recommender
) -> None:
    answer = await client.recommend("user-1", k=11, now=NOW)
    stated = [one.probability for one in answer]
    assert stated == [one.probability for one in offline.recommend("user-1", k=11, now=NOW)]
    assert all(one is not None and 0 < one < 1 for one in stated)
    assert stated[0] != stated[-1]
    ranked = await client.rank("user-1", ids(answer), now=NOW)
    assert [one.probability for one in ranked] == stated


async def test_results_without_a_probability_have_none(client: AsyncClient) -> None:
    answers = [
        await client.recommend("newcomer", k=3, now=NOW),
        await client.recommend("user-1", k=3, now=NOW, exclude_seen=True),
        await client.similar("red-mug", k=3),
        await client.search("red mug", k=3),
    ]
    for answer in answers:
        assert len(answer) == 3
        assert {one.probability for one in answer} == {None}


async def test_rules_that_contradict_each_other_or_name_no_item_are_refused(
    client: AsyncClient,
) -> None:
    with pytest.raises(UnknownItemError, match=r"got unknown .*teapot"):
        await client.recommend("user-1", rules=Rules(pin=[Pin("teapot", 1)]))
    message = pb.Rules(pin=[pb.Pin(item_id=one, position=1) for one in ("red-mug", "blue-mug")])
    with pytest.raises(
        grpc.aio.AioRpcError, match=r"rules.pin\[0\] and pin\[1\] put items"
    ) as raised:
        await client._stub.Recommend(pb.RecommendRequest(user_id="u", k=3, rules=message))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(InvalidArgumentError, match="rules must be Rules, such as"):
        await client.recommend("user-1", rules={"diversity": 1})  # type: ignore[arg-type]


async def test_similar_items_are_those_of_the_library(
    client: AsyncClient, offline: Recommender
) -> None:
    answer = await client.similar("red-mug", k=4)

    expected = offline.similar("red-mug", k=4)
    assert [(one.item_id, one.source) for one in answer.results] == [
        (one.item_id, one.source) for one in expected
    ]


@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize("has_image", [True, False])
async def test_a_search_is_that_of_the_library(
    client: AsyncClient, offline: Recommender, shop: Any, has_text: bool, has_image: bool
) -> None:
    text = "a green lamp" if has_text else None
    image = shop.pictures["blue-chair"] if has_image else None
    if not (has_text or has_image):
        with pytest.raises(ValueError, match="query must have text or image bytes, got neither"):
            await client.search()
        return

    answer = await client.search(text or "", image or b"", k=12)

    expected = offline.search(text, image, k=12)
    assert ids(answer) == [one.item_id for one in expected]
    np.testing.assert_allclose(
        [one.score for one in answer.results], [one.score for one in expected], atol=1e-5
    )


@pytest.mark.parametrize("mode", ["hybrid", "vector", "lexical"])
async def test_a_search_has_the_modes_of_the_library(
    client: AsyncClient, offline: Recommender, mode: SearchMode
) -> None:
    answer = await client.search("red lamp", k=12, mode=mode)

    expected = offline.search("red lamp", k=12, mode=mode)
    assert ids(answer) == [one.item_id for one in expected]
    assert len(answer.results) == (6 if mode == "lexical" else 11)  # of red things and lamps


async def test_a_lexical_search_by_picture_is_refused(client: AsyncClient, shop: Any) -> None:
    with pytest.raises(ValueError, match="mode lexical must have words and no image"):
        await client.search(image=shop.pictures["red-mug"], mode="lexical")
    with pytest.raises(ValueError, match="mode must be one of hybrid, vector, lexical, got 'fast'"):
        await client.search("lamp", mode="fast")  # type: ignore[arg-type]


async def test_a_known_photo_is_identified_and_a_strange_one_is_not(
    client: AsyncClient, shop: Any, strange_photo: bytes
) -> None:
    known = await client.identify(shop.pictures["green-chair"], k=3)
    strange = await client.identify(strange_photo, k=3)

    assert known.known
    assert known.candidates[0].item_id == "green-chair"
    assert len(known.candidates) == 3
    assert known.verdict in ("product", "group")
    assert known.product_group is not None
    assert known.product_group.item_ids[0] == "green-chair"
    assert known.product_group.probability >= 0.5
    assert not strange.known
    assert strange.verdict == "unknown"
    assert strange.product_group is None
    assert strange.probability < 0.5 < known.probability


async def test_a_query_has_the_same_answer_in_every_batch(
    service: Service, client: AsyncClient, offline: Recommender, shop: Any
) -> None:
    texts = ["red mug", "a very long wish for a green lamp with a shade", "x", "blue scarf"]
    photos = list(shop.pictures.values())[:4]
    queries = [
        *((text, None) for text in texts),
        *((None, photo) for photo in photos),
        *zip(texts, photos, strict=True),
    ]

    together = await asyncio.gather(
        *(client.search(text or "", photo or b"") for text, photo in queries)
    )

    # Words and pictures are embedded apart, and once each.
    assert service.telemetry.value("recsys_tower_batch_size_sum") == len(texts) + len(photos)
    assert service.telemetry.value("recsys_tower_batch_size_count") < len(queries) / 2
    for answer, (text, photo) in zip(together, queries, strict=True):
        alone = offline.search(text, photo, k=10)
        assert ids(answer) == [one.item_id for one in alone]
        np.testing.assert_allclose(
            [result.score for result in answer.results], [one.score for one in alone], atol=1e-5
        )


async def test_items_come_back_as_they_were_stored(client: AsyncClient) -> None:
    item = Item(
        "trumpet",
        title="Golden trumpet 🎺",
        description="Loud.",
        image="trumpet.jpg",
        category=("music", "brass"),
        price=99.5,
        attributes={"colour": "gold", "valves": "3"},
        available=False,
        created_at=NOW,
    )
    bare = Item("thing")
    await client.add_items([item, bare])

    answer = await client.get_items(["thing", "trumpet", "red-mug"])

    assert answer.items[:2] == (bare, item)
    assert answer.items[2].title == "red mug number 0"


async def test_the_request_limits_hold(client: AsyncClient) -> None:
    for k in (0, -1, 501):
        with pytest.raises(ValueError, match=f"k must be a whole number .*, got {k}"):
            await client.recommend("user-1", k=k)
        with pytest.raises(ValueError, match="k must be a whole number between"):
            await client.similar("red-mug", k=k)
        with pytest.raises(ValueError, match="k must be a whole number between"):
            await client.search("mug", k=k)
    with pytest.raises(ValueError, match="item_ids must have 1 to 1000 entries, got 1001"):
        await client.rank("user-1", [str(number) for number in range(1001)])
    with pytest.raises(ValueError, match="item_ids must have 1 to 1000 entries, got 0"):
        await client.rank("user-1", [])
    with pytest.raises(ValueError, match="user_id must have 1 to 1024 characters, got 0"):
        await client.recommend("")
    with pytest.raises(ValueError, match="at most 1000 characters, got 1001"):
        await client.search("x" * 1001)
    with pytest.raises(ValueError, match="query must have text or image"):
        await client.search("   ")


async def test_unknown_items_are_named(client: AsyncClient) -> None:
    for call in (
        client.similar("unheard of"),
        client.rank("user-1", ["red-mug", "unheard of"]),
        client.get_items(["unheard of"]),
        client.record_events([Event("user-1", "unheard of", "view")]),
    ):
        with pytest.raises(UnknownItemError, match="unheard of"):
            await call


async def test_a_call_with_one_wrong_event_stores_none_of_its_events(client: AsyncClient) -> None:
    good = Event("newcomer", "blue-lamp", "view", NOW)
    wrong = [
        (Event("newcomer", "unheard of", "view", NOW), UnknownItemError, "unheard of"),
        (
            Event("newcomer", "red-mug", "view", datetime.now(UTC) + timedelta(hours=1)),
            ValueError,
            r"events\[1\].timestamp must be at most 300 s in the future",
        ),
        (Event("", "red-mug", "view", NOW), ValueError, r"events\[1\].user_id must have 1 to 1024"),
    ]
    for event, error, message in wrong:
        with pytest.raises(error, match=message):
            await client.record_events([good, event])

    assert (await client.record_events([good])).recorded == 1


@pytest.mark.parametrize("photo", [b"GIF89a, or so it says", b"\x89PNG\r\n\x1a\n cut", b"<svg/>"])
async def test_bytes_that_are_not_an_image_are_refused(client: AsyncClient, photo: bytes) -> None:
    with pytest.raises(InvalidImageError):
        await client.identify(photo)
    with pytest.raises(InvalidImageError):
        await client.search(image=photo)
    with pytest.raises(InvalidImageError):
        await client.add_items([Item("new")], {"new": photo})
    with pytest.raises(UnknownItemError):
        await client.get_items(["new"])


async def test_a_bad_photo_does_not_spoil_the_batch_it_is_in(
    client: AsyncClient, shop: Any
) -> None:
    photos = [shop.pictures["red-mug"], b"no picture", shop.pictures["blue-mug"]]

    answers = await asyncio.gather(
        *(client.identify(photo, k=1) for photo in photos), return_exceptions=True
    )

    assert answers[0].candidates[0].item_id == "red-mug"  # type: ignore[union-attr]
    assert isinstance(answers[1], InvalidImageError)
    assert answers[2].candidates[0].item_id == "blue-mug"  # type: ignore[union-attr]


async def test_an_empty_photo_is_refused(client: AsyncClient) -> None:
    with pytest.raises(InvalidImageError, match="image must have 1 to 8388608 bytes, got 0"):
        await client.identify(b"")
