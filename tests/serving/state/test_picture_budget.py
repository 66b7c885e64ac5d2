"""Pictures in a real Redis have a budget, so that they leave room for events."""

from collections.abc import AsyncIterator

import pytest

from serving.config import build_config
from serving.errors import UnavailableError
from serving.state.changelog import LiveCatalogue
from serving.state.changes import Change, Forgetting
from serving.state.connection import RedisConnection
from serving.state.records import ItemRecord
from serving.state.unreadable import Unreadable


@pytest.fixture
async def live(connection: RedisConnection, namespace: str) -> AsyncIterator[LiveCatalogue]:
    """Yield a catalogue with room for 1,000 bytes of pictures."""

    async def ignore(_: object) -> None: ...

    live = LiveCatalogue(
        connection,
        connection,
        namespace=namespace,
        apply=ignore,
        revert=ignore,
        unreadable=Unreadable(lambda kind: None),
        picture_bytes=1_000,
    )
    await live.start()
    yield live
    await live.stop()


async def store(live: LiveCatalogue, item_id: str, size: int) -> None:
    record = ItemRecord(item_id, picture="stored" if size else "none", fields={"title": item_id})
    await live.write([Change(record, b"x" * size or None)], timeout_s=5)


async def test_pictures_beyond_the_budget_are_refused_and_everything_else_is_not(
    live: LiveCatalogue, connection: RedisConnection
) -> None:
    await store(live, "a", 600)
    await store(live, "b", 400)
    for item_id, size in (("c", 1), ("b", 401)):
        with pytest.raises(UnavailableError, match="have 1000 bytes and may have 1000 together"):
            await store(live, item_id, size)
    assert (await live.look_up(["c"])).records == [None]
    assert await live.picture("b") == b"x" * 400

    await store(live, "c", 0)  # an item without a picture
    await store(live, "a", 300)  # a smaller picture in place of another
    await store(live, "c", 300)
    await live.write([Forgetting(ItemRecord("b"))], timeout_s=5)
    await store(live, "d", 400)
    with pytest.raises(UnavailableError, match="have 1000 bytes"):
        await store(live, "e", 1)


async def test_pictures_that_another_release_stored_count(
    live: LiveCatalogue, connection: RedisConnection, namespace: str
) -> None:
    await store(live, "a", 100)
    await connection.client.hset(f"{{{namespace}:catalogue}}:pictures", "old", b"x" * 850)

    with pytest.raises(UnavailableError, match="have 950 bytes"):
        await store(live, "b", 51)
    await store(live, "b", 50)


def test_pictures_take_at_most_half_of_an_embedded_redis() -> None:
    sizes = {"redis_bytes": "100MiB", "picture_bytes": "80MiB"}

    assert build_config({}, **sizes).picture_budget == 50 * 2**20
    assert build_config({}, redis="redis://h", **sizes).picture_budget == 80 * 2**20
    assert build_config({}, redis_bytes=0).picture_budget == 256 * 2**20
