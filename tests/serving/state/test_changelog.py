import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from serving.errors import UnavailableError
from serving.state.changelog import LiveCatalogue
from serving.state.changes import Change, SupersededError
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from serving.state.records import ItemRecord, Written
from serving.state.unreadable import Unreadable
from tests.serving.waiting import eventually

record_of = partial(ItemRecord, written=Written(at_us=1))
Prepare = Callable[[EmbeddedRedis, str], Awaitable[Callable[[], Awaitable[None]]]]


class Replica:
    """A replica that serves nothing but remembers what took effect."""

    def __init__(self, url: str, namespace: str, *, read_count: int = 500) -> None:
        self.items: dict[str, ItemRecord] = {}
        self.applied: list[str] = []
        self.loads = 0
        self.failures = 0
        self.noted: list[str] = []
        self.connection = RedisConnection(url, timeout_s=2)
        self.follower = RedisConnection(url, timeout_s=3)
        self.live = LiveCatalogue(
            self.connection,
            self.follower,
            namespace=namespace,
            apply=self.apply,
            revert=self.revert,
            read_count=read_count,
            unreadable=Unreadable(self.noted.append),
        )

    async def apply(self, records: Sequence[ItemRecord]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("planted failure")
        for record in records:
            self.items[record.item_id] = record
            self.applied.append(record.item_id)

    async def revert(self, item_ids: Sequence[str]) -> None:
        for item_id in item_ids:
            del self.items[item_id]

    async def upsert(self, item_id: str, title: str, picture: bytes | None = None) -> None:
        record = record_of(
            item_id, picture="stored" if picture else "none", fields={"title": title}
        )
        await self.live.write([Change(record, picture)], timeout_s=2)

    def titles(self) -> list[str | None]:
        return [self.title(item_id) for item_id in self.items]

    def title(self, item_id: str) -> str | None:
        record = self.items.get(item_id)
        return None if record is None or record.fields is None else record.fields["title"]


@asynccontextmanager
async def running(
    server: EmbeddedRedis, namespace: str, *, read_count: int = 500
) -> AsyncIterator[Replica]:
    replica = Replica(server.url, namespace, read_count=read_count)
    await replica.live.start()
    try:
        yield replica
    finally:
        await replica.live.stop()
        await replica.connection.close()
        await replica.follower.close()


async def test_a_change_is_in_effect_here_once_acknowledged(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as replica:
        await replica.upsert("mug", "Red mug")
        assert replica.title("mug") == "Red mug"
        await replica.upsert("mug", "Blue mug")
        assert replica.title("mug") == "Blue mug"
        await replica.live.write([Change(record_of("mug", deleted=True))], timeout_s=2)
        assert replica.items["mug"].deleted


async def test_other_replicas_follow(redis_server: EmbeddedRedis, namespace: str) -> None:
    async with running(redis_server, namespace) as one, running(redis_server, namespace) as two:
        await one.upsert("mug", "Red mug")
        await eventually(lambda: two.title("mug") == "Red mug")
        await two.upsert("lamp", "Lamp")
        await eventually(lambda: one.title("lamp") == "Lamp")


async def test_a_late_replica_loads_what_happened_before(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as early:
        for number in range(30):
            await early.upsert(f"item-{number}", str(number))
        await early.upsert("item-3", "changed")
        await early.live.write([Change(record_of("item-4", deleted=True))], timeout_s=2)

        async with running(redis_server, namespace) as late:
            assert late.items == early.items
            assert len(late.items) == 30


async def test_replicas_that_write_at_once_end_in_the_same_state(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as one, running(redis_server, namespace) as two:
        writes = [
            replica.upsert(f"item-{number % 3}", f"{name}-{number}")
            for number in range(30)
            for name, replica in (("one", one), ("two", two))
        ]
        await asyncio.gather(*writes)
        await eventually(lambda: len(one.applied) == len(two.applied) == 60)

        assert one.items == two.items
        assert one.applied == two.applied
        stored = (await one.live.look_up(["item-0", "item-1", "item-2"])).records
        assert stored == [one.items[f"item-{number}"] for number in range(3)]


async def test_a_picture_is_stored_kept_replaced_and_dropped(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as replica:
        picture = bytes(range(256))
        await replica.upsert("mug", "Mug", picture)
        assert await replica.live.picture("mug") == picture
        await replica.live.write([Change(record_of("mug"), "same")], timeout_s=2)
        assert await replica.live.picture("mug") == picture
        await replica.upsert("mug", "Mug", b"other")
        assert await replica.live.picture("mug") == b"other"
        await replica.upsert("mug", "Mug")
        assert await replica.live.picture("mug") is None


@pytest.mark.parametrize("seen", [None, record_of("mug", picture="stored", picture_digest="old")])
async def test_a_change_made_from_another_picture_is_refused_with_all_others(
    redis_server: EmbeddedRedis, namespace: str, seen: ItemRecord | None
) -> None:
    async with running(redis_server, namespace) as replica:
        stored = record_of("mug", picture="stored", picture_digest="new")
        await replica.live.write([Change(stored, b"new")], timeout_s=2)

        changes = [Change(record_of("lamp")), Change(record_of("mug"), "same", seen=seen)]
        with pytest.raises(SupersededError):
            await replica.live.write(changes, timeout_s=2)
        assert (await replica.live.look_up(["lamp", "mug"])).records == [None, stored]


@pytest.mark.parametrize("picture", ["stored", "bundle", "none"])
async def test_a_change_made_from_the_stored_picture_is_taken(
    redis_server: EmbeddedRedis, namespace: str, picture: Literal["stored", "bundle", "none"]
) -> None:
    digest = "new" if picture == "stored" else None
    async with running(redis_server, namespace) as replica:
        for title in ("Mug", "Red mug"):
            seen = (await replica.live.look_up(["mug"])).records[0]
            record = record_of("mug", False, picture, digest, {"title": title})
            await replica.live.write([Change(record, "same", seen=seen)], timeout_s=2)

        assert replica.title("mug") == "Red mug"


@pytest.mark.parametrize(
    "text", ["\x00", "\x00none", '"\\', "🎺\u2028\u00e9", "[1]", "\x7f\n\t", "null"]
)
async def test_any_text_and_picture_arrive_as_they_were_sent(
    redis_server: EmbeddedRedis, namespace: str, text: str
) -> None:
    picture = text.encode() + b"\xff\x00"
    record = record_of(text, False, "stored", "digest", {"title": text})
    async with running(redis_server, namespace) as replica:
        await replica.live.write([Change(record, picture), Change(record_of("b"))], timeout_s=2)

        assert replica.items == {text: record, "b": record_of("b")}
        assert (await replica.live.look_up([text])).records == [record]
        assert await replica.live.picture(text) == picture


async def test_an_item_that_was_never_changed_has_no_record(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as replica:
        await replica.upsert("mug", "Mug")

        assert (await replica.live.look_up(["lamp", "mug"])).records == [None, replica.items["mug"]]


async def test_a_replica_that_fell_too_far_behind_loads_again(
    redis_server: EmbeddedRedis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(redis_server, namespace) as one, running(redis_server, namespace) as two:
        await one.upsert("mug", "Mug")
        await eventually(lambda: two.title("mug") == "Mug")
        client, prefix = one.connection.client, f"{{{namespace}:catalogue}}"
        # As if the stream had been cut: changes that two never read are no longer in it.
        lost = b'{"item_id": "lost", "deleted": false, "fields": {"title": "Lost"}}'
        await client.hset(f"{prefix}:records", "lost", lost)
        await client.set(f"{prefix}:number", 40)
        await one.upsert("lamp", "Lamp")

        await eventually(lambda: two.title("lost") == "Lost")
        assert two.title("lamp") == "Lamp"
    assert "missed changes 2 to 40" in caplog.text


async def test_a_change_that_cannot_be_applied_is_tried_again(
    redis_server: EmbeddedRedis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(redis_server, namespace) as replica:
        replica.failures = 1
        await replica.upsert("mug", "Mug")

        assert replica.title("mug") == "Mug"
        assert "planted failure" in caplog.text
        await eventually(lambda: not replica.live.stale)


async def test_an_entry_that_cannot_be_read_makes_replicas_load_what_is_stored(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as replica:
        await replica.upsert("mug", "Mug")
        client, prefix = replica.connection.client, f"{{{namespace}:catalogue}}"
        await client.hset(f"{prefix}:records", "lamp", b'{"item_id": "lamp"}')
        await client.hset(f"{prefix}:records", "chair", b"\xff")
        entry = {"n": await client.incr(f"{prefix}:number"), "r": b"{"}
        await client.xadd(f"{prefix}:stream", entry | {"e": await client.get(f"{prefix}:epoch")})

        await eventually(lambda: "lamp" in replica.items)
        assert not replica.items["chair"].is_readable
        assert replica.noted == ["item"]
        await replica.upsert("mug", "Blue mug")
        assert replica.title("mug") == "Blue mug"


async def test_a_write_that_does_not_take_effect_in_time_says_so(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace) as replica:
        await replica.live.stop()

        with pytest.raises(UnavailableError, match="stored, but this replica has not applied it"):
            await replica.live.write([Change(record_of("mug"))], timeout_s=0.05)
        assert (await replica.live.look_up(["mug"])).records == [record_of("mug")]


async def test_an_outage_makes_the_replica_stale_and_then_it_catches_up(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    async with running(server, "outage") as replica:
        await replica.upsert("mug", "Mug")
        server.stop()
        await eventually(lambda: replica.live.stale)
        with pytest.raises(UnavailableError):
            await replica.upsert("lamp", "Lamp")

        server.start()
        async with running(server, "outage") as other:
            await other.upsert("lamp", "Lamp")
        await eventually(lambda: replica.title("lamp") == "Lamp")
        assert not replica.live.stale
        await replica.upsert("chair", "Chair")
        assert replica.title("chair") == "Chair"
    server.stop()


async def test_a_start_without_redis_fails() -> None:
    replica = Replica("redis://127.0.0.1:1/0", "nothing")

    with pytest.raises(UnavailableError):
        await replica.live.start()
    await replica.connection.close()
    await replica.follower.close()


async def test_a_large_catalogue_loads_in_pieces(
    redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with running(redis_server, namespace, read_count=10) as early:
        changes = [Change(record_of(f"item-{number}" * 10)) for number in range(700)]
        await early.live.write(changes, timeout_s=5)
        async with running(redis_server, namespace, read_count=10) as late:
            assert late.items == early.items
            assert len(late.items) == 700


async def test_changes_that_are_not_in_the_stream_are_loaded(
    redis_server: EmbeddedRedis, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(redis_server, namespace) as replica:
        await replica.upsert("mug", "Mug")
        client, prefix = replica.connection.client, f"{{{namespace}:catalogue}}"
        # As if entries came from a clock behind that of the last one read.
        await client.hset(f"{prefix}:records", "lamp", b'{"item_id": "lamp"}')
        await client.incr(f"{prefix}:number")

        await eventually(lambda: "lamp" in replica.items)
        assert "missed changes 2 to 2" in caplog.text


async def keep(server: EmbeddedRedis, namespace: str) -> Callable[[], Awaitable[None]]:
    """Return what brings the catalogue back to what it is now, as a lagging replica would."""
    connection = RedisConnection(server.url, timeout_s=2)
    names = ("number", "epoch", "records", "stream")
    keys = {f"{{{namespace}:catalogue}}:{name}": f"{namespace}:kept:{name}" for name in names}
    for key, copy in keys.items():
        await connection.client.copy(key, copy)

    async def bring_back() -> None:
        pipeline = connection.client.pipeline(transaction=True)
        for key, copy in keys.items():
            pipeline.copy(copy, key, replace=True)
        await pipeline.execute()
        await connection.close()

    return bring_back


async def lose_everything(server: EmbeddedRedis, namespace: str) -> Callable[[], Awaitable[None]]:
    """Return what removes the catalogue, as a restart without persistence would."""

    async def lose() -> None:
        connection = RedisConnection(server.url, timeout_s=2)
        keys = [key async for key in connection.client.scan_iter(f"{{{namespace}:catalogue}}:*")]
        await connection.client.delete(*keys)
        await connection.close()

    return lose


@pytest.mark.parametrize("prepare", [keep, lose_everything])
async def test_replicas_revert_items_that_redis_lost(
    redis_server: EmbeddedRedis, namespace: str, prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(redis_server, namespace) as one, running(redis_server, namespace) as two:
        await one.upsert("mug", "Red mug")
        lose = await prepare(redis_server, namespace)
        await one.upsert("mug", "Blue mug")
        await one.upsert("lamp", "Lamp")
        await eventually(lambda: two.items == one.items and len(two.items) == 2)

        await lose()

        left = ["Red mug"] if prepare is keep else []
        await eventually(lambda: one.titles() == two.titles() == left)
        assert "Redis lost changes that were in effect here" in caplog.text
        assert "live items; reverting them to the bundle's version" in caplog.text
        await eventually(lambda: not one.live.stale)


@pytest.mark.parametrize("prepare", [keep, lose_everything])
async def test_a_write_after_a_loss_is_in_effect_once_acknowledged(
    redis_server: EmbeddedRedis, namespace: str, prepare: Prepare
) -> None:
    async with running(redis_server, namespace) as one, running(redis_server, namespace) as two:
        await one.upsert("mug", "Mug")
        lose = await prepare(redis_server, namespace)
        for number in range(5):
            await one.upsert(f"lamp-{number}", "Lamp")
        await lose()

        await one.upsert("chair", "Chair")

        assert one.title("chair") == "Chair"
        left = {"mug", "chair"} if prepare is keep else {"chair"}
        assert set(one.items) == left
        await eventually(lambda: set(two.items) == left)
        await two.upsert("scarf", "Scarf")
        assert two.title("scarf") == "Scarf"
        await eventually(lambda: one.items == two.items)
