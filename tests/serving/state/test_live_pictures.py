"""Records and pictures that several callers change at once, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.bundle import Bundle
from recsys.recommender import Recommender
from serving.client import AsyncClient, Item
from serving.engine.embeddings import picture_digest
from serving.state import items as live_items
from serving.state.changelog import LiveCatalogue
from serving.state.connection import RedisConnection
from serving.state.records import ItemRecord
from serving.testing import running_service

Channel = grpc.aio.Channel


@pytest.fixture(scope="module")
def offline(shop: Any) -> Recommender:
    return Recommender(Bundle(shop.path))


@pytest.fixture
async def hesitant(shop: Any, redis_server: Any, namespace: str) -> AsyncIterator[Channel]:
    """Yield a channel to a replica whose towers take long enough for others to be faster."""
    settings = {"redis": redis_server.url, "namespace": namespace, "batch_wait_ms": 1_000}
    async with (
        running_service(shop.path, **settings) as service,
        grpc.aio.insecure_channel(service.address) as channel,  # calls once, unlike our client
    ):
        yield channel


async def rename(channel: Channel, title: str) -> None:
    item = pb.Item(item_id="new", title=title)
    request = pb.UpsertItemsRequest(items=[pb.ItemUpsert(item=item)])
    await rpc.RecommenderStub(channel).UpsertItems(request)


async def score(client: AsyncClient, text: str) -> float:
    """Return how near the item "new" is to words."""
    answer = await client.search(text, k=500, mode="vector")
    return next(result.score for result in answer.results if result.item_id == "new")


async def stored(
    connection: RedisConnection, namespace: str, item_id: str
) -> tuple[ItemRecord, bytes | None]:
    """Return an item's record and picture, as Redis has them."""

    async def ignore(_: object) -> None: ...

    live = LiveCatalogue(connection, connection, namespace=namespace, apply=ignore, revert=ignore)
    record = (await live.records([item_id]))[0]
    assert record is not None
    return record, await live.picture(item_id)


async def forget_embeddings(connection: RedisConnection, namespace: str) -> None:
    """Remove what a replica of another bundle version would not have."""
    async for key in connection.client.scan_iter(f"{namespace}:embedding:*"):
        await connection.client.delete(key)


@pytest.mark.parametrize("change", ["replaced", "taken away", "deleted with its item"])
async def test_a_picture_that_others_change_during_an_upsert_is_the_one_that_its_record_names(
    client: AsyncClient,
    hesitant: Channel,
    offline: Recommender,
    connection: RedisConnection,
    shop: Any,
    redis_server: Any,
    namespace: str,
    strange_photo: bytes,
    change: str,
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})
    renaming = asyncio.create_task(rename(hesitant, "silver flute"))
    await asyncio.sleep(0.1)  # it has read the record, and embeds
    picture = shop.pictures["red-mug"] if change == "replaced" else b""
    if change == "deleted with its item":
        await client.delete_items(["new"])
    else:
        await client.add_items([Item("new", title="golden trumpet")], {"new": picture})
    assert not renaming.done()
    await renaming

    record, data = await stored(connection, namespace, "new")
    assert record.fields is not None
    assert record.fields["title"] == "silver flute"
    assert (data or b"") == picture
    assert record.picture_digest == (picture_digest(picture) if picture else None)
    await forget_embeddings(connection, namespace)
    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as replica,
        AsyncClient(replica.address) as fresh,
    ):
        expected = offline.embedder.query("silver flute", picture or None)
        query = offline.embedder.query("silver flute", None)
        assert await score(fresh, "silver flute") == pytest.approx(expected @ query, abs=1e-5)


async def test_an_upsert_whose_picture_others_keep_changing_says_so(
    client: AsyncClient,
    hesitant: Channel,
    strange_photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_items, "_ATTEMPTS", 1)
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})
    renaming = asyncio.create_task(rename(hesitant, "silver flute"))
    await asyncio.sleep(0.1)
    await client.add_items([Item("new", title="golden trumpet")], {"new": b""})
    assert not renaming.done()

    with pytest.raises(grpc.aio.AioRpcError, match="must keep theirs while") as caught:
        await renaming
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await client.get_items(["new"])).items[0].title == "golden trumpet"


async def test_a_stored_item_whose_picture_is_another_is_served_without_it_and_logged(
    client: AsyncClient,
    connection: RedisConnection,
    shop: Any,
    redis_server: Any,
    namespace: str,
    strange_photo: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})
    await connection.client.hset(f"{{{namespace}:catalogue}}:pictures", "new", b"another")
    await forget_embeddings(connection, namespace)

    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as replica,
        AsyncClient(replica.address) as fresh,
    ):
        assert await score(fresh, "golden trumpet") == pytest.approx(1.0, abs=1e-5)
    assert "item 'new' is served without its picture: Redis has another" in caplog.text
