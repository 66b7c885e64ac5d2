"""What an upsert makes of an item, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.errors import UnknownItemError
from recsys.recommender import Recommender
from serving.client import AsyncClient, Event, Filters, Item
from serving.errors import UnavailableError
from serving.rpc.server import Service
from serving.state.records import ItemRecord, Written, encode_record
from serving.testing import running_service
from tests.serving.waiting import eventually


@pytest.fixture(scope="module")
def offline(shop: Any) -> Recommender:
    return Recommender(Bundle(shop.path))


@pytest.fixture
async def other(
    shop: Any, service: Service, redis_server: Any, namespace: str
) -> AsyncIterator[AsyncClient]:
    """Yield a client of a second replica."""
    async with AsyncExitStack() as stack:
        replica = await stack.enter_async_context(
            running_service(shop.path, redis=redis_server.url, namespace=namespace)
        )
        yield await stack.enter_async_context(AsyncClient(replica.address))


async def best(client: AsyncClient, text: str) -> tuple[str, float]:
    result = (await client.search(text, k=1, mode="vector")).results[0]
    return result.item_id, result.score


async def everything(client: AsyncClient) -> set[str]:
    return {result.item_id for result in (await client.search("mug", k=500)).results}


async def similarity(client: AsyncClient, text: str, item_id: str, picture: bytes = b"") -> float:
    every = Filters(available_only=False)
    answer = await client.search(text, picture, k=500, filters=every, mode="vector")
    return next(result.score for result in answer.results if result.item_id == item_id)


def own_similarity(offline: Recommender, text: str, picture: bytes) -> Any:
    """Return the score of an item whose own words and picture are searched for."""
    embed = offline.embedder.query
    query = embed(text, None) + embed(None, picture)
    score = embed(text, picture) @ query / np.linalg.norm(query)
    return pytest.approx(score, abs=1e-5)


async def test_a_new_item_is_found_and_recommended_at_once(
    client: AsyncClient, strange_photo: bytes
) -> None:
    item = Item("trumpet", title="golden trumpet", category=("music",), price=5.0)

    answer = await client.add_items([item], {"trumpet": strange_photo})

    assert answer.added == 1
    in_music = Filters(category=("music",))
    for found in (
        await client.search("golden trumpet", strange_photo, k=1),
        await client.similar("red-mug", k=1, filters=in_music),
        await client.recommend("user-1", k=1, filters=in_music),
        await client.rank("user-1", ["trumpet"]),
    ):
        assert found.results[0].item_id == "trumpet"
    await client.record_events([Event("newcomer", "trumpet", "view")])
    assert (await client.recommend("newcomer", k=1)).results[0].item_id == "trumpet"


async def test_a_new_item_is_identified_by_its_picture_at_once(
    client: AsyncClient, strange_photo: bytes
) -> None:
    assert not (await client.identify(strange_photo)).known

    # The title is part of the item's embedding, and the photo is of the picture alone.
    await client.add_items([Item("trumpet", title="golden trumpet")], {"trumpet": strange_photo})

    identified = await client.identify(strange_photo, k=1)
    assert identified.known
    assert identified.candidates[0].item_id == "trumpet"


async def test_an_item_that_loses_its_picture_is_no_longer_identified_by_it(
    client: AsyncClient, strange_photo: bytes
) -> None:
    await client.add_items([Item("trumpet", title="trumpet")], {"trumpet": strange_photo})
    assert (await client.identify(strange_photo)).known

    await client.add_items([Item("trumpet", title="trumpet")], {"trumpet": b""})

    assert not (await client.identify(strange_photo)).known


async def test_an_upserted_items_embedding_is_that_of_the_library(
    client: AsyncClient, offline: Recommender, strange_photo: bytes
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})

    found = await client.search("golden trumpet", strange_photo, k=1)

    assert found.results[0].item_id == "new"
    own = own_similarity(offline, "golden trumpet", strange_photo)
    assert await similarity(client, "golden trumpet", "new", strange_photo) == own
    expected = offline.embedder.query("golden trumpet", None) @ offline.embedder.query(
        "golden trumpet", strange_photo
    )
    assert await similarity(client, "golden trumpet", "new") == pytest.approx(expected, abs=1e-5)


async def test_a_new_price_keeps_the_picture_that_only_the_bundle_knows(
    service: Service, client: AsyncClient
) -> None:
    stored = (await client.get_items(["red-mug"])).items[0]
    before = await client.similar("blue-mug", k=500)

    await client.add_items([Item(**(vars(stored) | {"price": 1.0, "available": True}))])

    assert (await client.get_items(["red-mug"])).items[0].price == 1.0
    assert await client.similar("blue-mug", k=500) == before
    assert service.telemetry.value("recsys_embedding_lookups_total", tier="bundle") > 0
    assert service.telemetry.value("recsys_embedding_lookups_total", tier="towers") == 0


async def test_new_words_for_a_picture_that_only_the_bundle_has_are_refused(
    client: AsyncClient, offline: Recommender, shop: Any
) -> None:
    renamed = Item("red-mug", title="crimson cup")

    with pytest.raises(ValueError, match=r"item 'red-mug' has new words, .* send the picture"):
        await client.add_items([renamed])
    assert (await client.get_items(["red-mug"])).items[0].title == "red mug number 0"

    await client.add_items([renamed], {"red-mug": shop.pictures["red-mug"]})
    query = "crimson cup", shop.pictures["red-mug"]
    assert (await client.search(*query, k=1)).results[0].item_id == "red-mug"
    own = own_similarity(offline, *query)
    assert await similarity(client, query[0], "red-mug", query[1]) == own


async def test_a_stored_picture_is_kept_until_it_is_taken_away(
    client: AsyncClient, offline: Recommender, strange_photo: bytes
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})

    await client.add_items([Item("new", title="silver flute")])
    own = own_similarity(offline, "silver flute", strange_photo)
    assert await similarity(client, "silver flute", "new", strange_photo) == own

    await client.add_items([Item("new", title="silver flute")], {"new": b""})
    assert await best(client, "silver flute") == ("new", pytest.approx(1.0, abs=1e-5))


async def test_an_item_without_words_or_picture_is_stored_and_not_found(
    client: AsyncClient,
) -> None:
    await client.add_items([Item("blank", price=3.0)])

    assert (await client.get_items(["blank"])).items[0].price == 3.0
    answer = await client.search("anything", k=500)
    assert "blank" not in {one.item_id for one in answer.results}


async def test_a_deleted_item_is_not_answered_until_it_is_upserted_again(
    client: AsyncClient,
) -> None:
    assert (await client.delete_items(["red-mug", "unheard of"])).deleted == 1
    assert (await client.delete_items(["red-mug"])).deleted == 0

    answers = [
        await client.recommend("user-1", k=500),
        await client.search("red mug", k=500),
        await client.similar("red-lamp", k=500),
    ]
    assert all("red-mug" not in {one.item_id for one in answer.results} for answer in answers)
    for call in (client.get_items(["red-mug"]), client.similar("red-mug")):
        with pytest.raises(UnknownItemError):
            await call

    await client.add_items([Item("red-mug", title="red mug number 0")])
    assert await best(client, "red mug number 0") == ("red-mug", pytest.approx(1.0, abs=1e-5))


async def test_replicas_see_each_others_changes(
    client: AsyncClient, other: AsyncClient, offline: Recommender, strange_photo: bytes
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})

    async def found() -> bool:
        return "new" in await everything(other)

    await eventually(found)
    for one in (client, other):
        own = own_similarity(offline, "golden trumpet", strange_photo)
        assert await similarity(one, "golden trumpet", "new", strange_photo) == own
        identified = await one.identify(strange_photo, k=1)
        assert (identified.known, identified.candidates[0].item_id) == (True, "new")

    await other.delete_items(["new"])

    async def gone() -> bool:
        return "new" not in await everything(client)

    await eventually(gone)


async def test_a_second_replica_takes_embeddings_from_the_first(
    service: Service, client: AsyncClient, shop: Any, redis_server: Any, namespace: str
) -> None:
    items = [Item(f"new-{number}", title=f"trumpet {number}") for number in range(20)]
    await client.add_items(items)
    assert service.telemetry.value("recsys_embedding_lookups_total", tier="towers") == 20

    async with running_service(shop.path, redis=redis_server.url, namespace=namespace) as replica:
        lookups = "recsys_embedding_lookups_total"
        assert replica.telemetry.value(lookups, tier="redis") == 20
        assert replica.telemetry.value(lookups, tier="towers") == 0
        async with AsyncClient(replica.address) as fresh:
            assert (await best(fresh, "trumpet 7"))[0] == "new-7"


async def test_embeddings_that_redis_lost_are_computed_again_from_the_stored_picture(
    client: AsyncClient,
    offline: Recommender,
    shop: Any,
    connection: Any,
    redis_server: Any,
    namespace: str,
    strange_photo: bytes,
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})
    async for key in connection.client.scan_iter(f"{namespace}:embedding:*"):
        await connection.client.delete(key)

    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as replica,
        AsyncClient(replica.address) as fresh,
    ):
        own = own_similarity(offline, "golden trumpet", strange_photo)
        assert await similarity(fresh, "golden trumpet", "new", strange_photo) == own


async def test_items_upserted_at_once_from_two_replicas_end_the_same_on_both(
    client: AsyncClient, other: AsyncClient
) -> None:
    await asyncio.gather(
        *(
            one.add_items([Item("contested", title=f"{name} {number}", price=float(number))])
            for number in range(10)
            for name, one in (("left", client), ("right", other))
        )
    )

    async def agreed() -> bool:
        left, right = [(await one.get_items(["contested"])).items for one in (client, other)]
        return left == right

    await eventually(agreed)
    left, right = [(await one.search("left 3", k=500)).results for one in (client, other)]
    np.testing.assert_allclose([one.score for one in left], [one.score for one in right])


async def test_items_that_redis_lost_are_as_in_the_bundle_again(
    service: Service,
    client: AsyncClient,
    connection: Any,
    namespace: str,
    shop: Any,
    strange_photo: bytes,
) -> None:
    async def answers() -> tuple[dict[str, float], list[Item]]:
        lists = [
            (await client.search("red mug", shop.pictures["red-mug"], k=500)).results,
            (await client.similar("blue-mug", k=500)).results,
            (await client.identify(shop.pictures["red-mug"], k=12)).candidates,
            (await client.identify(shop.pictures["red-lamp"], k=12)).candidates,
        ]
        scores = {f"{n} {one.item_id}": one.score for n, some in enumerate(lists) for one in some}
        return scores, list((await client.get_items(["red-mug", "red-lamp"])).items)

    scores, items = await answers()
    await client.add_items(
        [Item("red-mug", title="crimson cup", price=1.0), Item("new", title="golden trumpet")],
        {"red-mug": strange_photo, "new": strange_photo},
    )
    await client.delete_items(["red-lamp"])
    keys = [key async for key in connection.client.scan_iter(f"{{{namespace}:catalogue}}:*")]
    await connection.client.delete(*keys)

    async def gone() -> bool:
        return "new" not in await everything(client)

    await eventually(gone)
    assert await answers() == (pytest.approx(scores, abs=1e-4), items)
    assert not (await client.identify(strange_photo)).known
    with pytest.raises(UnknownItemError):
        await client.get_items(["new"])
    await client.add_items([Item("new", title="golden trumpet")])
    assert await best(client, "golden trumpet") == ("new", pytest.approx(1.0, abs=1e-5))


async def test_an_item_whose_new_picture_redis_lost_is_identified_by_that_of_the_bundle(
    client: AsyncClient, connection: Any, namespace: str, shop: Any, strange_photo: bytes
) -> None:
    mug = (await client.get_items(["red-mug"])).items[0]
    await client.add_items([Item(**(vars(mug) | {"price": 1.0}))])
    before = await client.identify(shop.pictures["red-mug"])
    keys = [key async for key in connection.client.scan_iter(f"{{{namespace}:catalogue}}:*")]
    kept = {key: await connection.client.dump(key) for key in keys}
    await client.add_items([Item(**(vars(mug) | {"price": 2.0}))], {"red-mug": strange_photo})
    assert (await client.identify(strange_photo)).known

    pipeline = connection.client.pipeline(transaction=True)
    for key, value in kept.items():
        pipeline.restore(key, 0, value, replace=True)
    await pipeline.execute()

    async def rolled_back() -> bool:
        return not (await client.identify(strange_photo)).known

    await eventually(rolled_back)
    after = await client.identify(shop.pictures["red-mug"])
    assert after.candidates[0].item_id == "red-mug"
    assert [(one.item_id, pytest.approx(one.score, abs=1e-5)) for one in before.candidates] == [
        (one.item_id, one.score) for one in after.candidates
    ]
    assert (await client.get_items(["red-mug"])).items[0].price == 1.0


async def test_one_item_twice_in_a_call_is_refused(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="items must be distinct, got 'new' more than once"):
        await client.add_items([Item("new", title="a"), Item("new", title="b")])


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
async def test_a_price_that_is_negative_or_not_finite_is_refused(
    client: AsyncClient, price: float
) -> None:
    with pytest.raises(ValueError, match=r"items\[0\].price must be a number from 0 to"):
        await client.add_items([Item("new", price=price)])


async def test_a_record_that_cannot_be_served_does_not_stop_the_others(
    shop: Any,
    client: AsyncClient,
    connection: Any,
    redis_server: Any,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await client.add_items([Item("good", title="golden trumpet")])
    early = {"created_at": "0001-01-01T00:00:00+05:00"}  # not a time in UTC
    poison = ItemRecord("bad", fields=early, written=Written(at_us=2**52))
    records = f"{{{namespace}:catalogue}}:records"
    await connection.client.hset(records, "bad", encode_record(poison))

    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as replica,
        AsyncClient(replica.address) as fresh,
    ):
        assert (await fresh.get_items(["good"])).items[0].title == "golden trumpet"
        with pytest.raises(UnknownItemError):
            await fresh.get_items(["bad"])
    assert "item 'bad' is left out" in caplog.text


async def test_a_full_redis_says_what_to_do_and_nothing_else_suffers(
    shop: Any, tmp_path: Any
) -> None:
    async with (
        running_service(shop.path, state=tmp_path, redis_bytes=3_000_000) as service,
        AsyncClient(service.address) as client,
    ):
        long = "x" * 20_000

        async def fill() -> None:
            for number in range(200):
                await client.add_items([Item(f"new-{number}", image=long)])

        with pytest.raises(UnavailableError, match="Redis is full; raise redis_bytes"):
            await fill()

        assert (await client.recommend("user-1", k=3)).degraded == ()
        assert (await client.get_items(["new-0"])).items[0].image == long
