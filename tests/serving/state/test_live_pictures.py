"""Records and pictures that several callers change at once, over real gRPC."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.bundle import Bundle
from recsys.catalogue.embedder import ItemEmbedder, Modalities
from recsys.recommender import Recommender
from serving.client import AsyncClient, Item
from serving.engine.embeddings import picture_digest
from serving.state.changelog import LiveCatalogue
from serving.state.connection import RedisConnection
from serving.state.records import ItemRecord
from serving.state.unreadable import Unreadable
from serving.testing import running_service
from tests.serving.conftest import draw

Channel = grpc.aio.Channel
Change = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def offline(shop: Any) -> Recommender:
    return Recommender(Bundle(shop.path))


@pytest.fixture
async def other(shop: Any, redis_server: Any, namespace: str) -> AsyncIterator[Channel]:
    """Yield a channel to a second replica."""
    async with (
        running_service(shop.path, redis=redis_server.url, namespace=namespace) as service,
        grpc.aio.insecure_channel(service.address) as channel,  # calls once, unlike our client
    ):
        yield channel


def interrupt(monkeypatch: pytest.MonkeyPatch, text: str, changes: Iterator[Change]) -> None:
    """Make one more change each time before the towers embed a text."""
    loop, embed = asyncio.get_running_loop(), ItemEmbedder.modalities

    def interrupted(self: ItemEmbedder, texts: Any, pictures: Any, **settings: Any) -> Modalities:
        if text in (texts or ()) and (change := next(changes, None)) is not None:
            # This is the thread of the towers; the change is made by the event loop meanwhile.
            asyncio.run_coroutine_threadsafe(change(), loop).result(timeout=30)
        return embed(self, texts, pictures, **settings)

    monkeypatch.setattr(ItemEmbedder, "modalities", interrupted)


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

    live = LiveCatalogue(
        connection,
        connection,
        namespace=namespace,
        apply=ignore,
        revert=ignore,
        unreadable=Unreadable(lambda kind: None),
    )
    record = (await live.look_up([item_id])).records[0]
    assert record is not None
    return record, await live.picture(item_id)


async def forget_embeddings(connection: RedisConnection, namespace: str) -> None:
    """Remove what a replica of another bundle version would not have."""
    async for key in connection.client.scan_iter(f"{namespace}:embedding:*"):
        await connection.client.delete(key)


@pytest.mark.parametrize("change", ["replaced", "taken away", "deleted with its item"])
async def test_a_picture_that_others_change_during_an_upsert_is_the_one_that_its_record_names(
    client: AsyncClient,
    other: Channel,
    offline: Recommender,
    connection: RedisConnection,
    shop: Any,
    redis_server: Any,
    namespace: str,
    strange_photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})
    picture = shop.pictures["red-mug"] if change == "replaced" else b""

    async def change_it() -> None:
        if change == "deleted with its item":
            await client.delete_items(["new"])
        else:
            await client.add_items([Item("new", title="golden trumpet")], {"new": picture})

    changes = iter([change_it])
    interrupt(monkeypatch, "silver flute", changes)
    await rename(other, "silver flute")
    assert next(changes, None) is None

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


async def test_an_upsert_whose_picture_others_change_in_every_attempt_is_refused(
    client: AsyncClient,
    other: Channel,
    strange_photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await client.add_items([Item("new", title="golden trumpet")], {"new": strange_photo})

    async def replace_picture() -> None:
        picture = draw((next(shades), 0, 0), 8)
        await client.add_items([Item("new", title="golden trumpet")], {"new": picture})

    shades = itertools.count()
    interrupt(monkeypatch, "silver flute", itertools.repeat(replace_picture))
    with pytest.raises(
        grpc.aio.AioRpcError, match=r"must keep theirs while .* 10 attempts"
    ) as caught:
        await rename(other, "silver flute")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert next(shades) == 10
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
