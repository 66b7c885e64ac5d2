"""Live histories in a real Redis."""

import json
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.answers import Event
from recsys.data.timestamps import from_us
from serving.errors import UnavailableError
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from serving.state.histories import LiveHistories
from serving.state.unreadable import Unreadable
from tests.serving.cutting_proxy import running_proxy


def event(item_id: str, second: int, user_id: str = "ann", kind: str = "view") -> Event:
    return Event(user_id, item_id, kind, from_us(second * 1_000_000))


def histories(
    connection: RedisConnection,
    namespace: str,
    *,
    max_events: int = 5,
    ttl_s: int | None = None,
    noted: list[str] | None = None,
) -> LiveHistories:
    unreadable = Unreadable(([] if noted is None else noted).append)
    return LiveHistories(
        connection, namespace=namespace, max_events=max_events, ttl_s=ttl_s, unreadable=unreadable
    )


async def test_events_come_back_in_time_order_whatever_order_they_arrived_in(
    connection: RedisConnection, namespace: str
) -> None:
    live = histories(connection, namespace)
    await live.record([event("c", 3), event("a", 1)])
    await live.record([event("b", 2)])

    assert [one.item_id for one in await live.read("ann")] == ["a", "b", "c"]
    assert (await live.read("ann"))[0] == event("a", 1)


async def test_an_event_sent_again_is_one_event(
    connection: RedisConnection, namespace: str
) -> None:
    live = histories(connection, namespace)

    assert await live.record([event("a", 1), event("b", 2), event("a", 1)]) == 2
    assert await live.record([event("b", 2), event("c", 3)]) == 1
    assert len(await live.read("ann")) == 3


async def test_users_do_not_share_events(connection: RedisConnection, namespace: str) -> None:
    live = histories(connection, namespace)
    new = await live.record([event("a", 1), event("a", 1, "bob"), event("b", 2, "bob")])

    assert new == 3
    assert [one.item_id for one in await live.read("ann")] == ["a"]
    assert [one.item_id for one in await live.read("bob")] == ["a", "b"]
    assert await live.read("nobody") == []


async def test_only_the_last_events_are_kept(connection: RedisConnection, namespace: str) -> None:
    live = histories(connection, namespace, max_events=3)
    for second in (5, 1, 4, 2, 3):
        await live.record([event(str(second), second)])

    assert [one.item_id for one in await live.read("ann")] == ["3", "4", "5"]


async def test_a_user_is_forgotten_after_the_last_event(
    connection: RedisConnection, namespace: str
) -> None:
    live = histories(connection, namespace, ttl_s=100)
    await live.record([event("a", 1), event("b", 1, "bob")])

    for user_id in ("ann", "bob"):
        assert 95 <= await connection.client.ttl(f"{namespace}:history:{user_id}") <= 100


async def test_without_a_limit_a_user_is_never_forgotten(
    connection: RedisConnection, namespace: str
) -> None:
    await histories(connection, namespace).record([event("a", 1)])

    assert await connection.client.ttl(f"{namespace}:history:ann") == -1


async def test_an_event_that_an_earlier_release_stored_with_quantity_and_value_is_read(
    connection: RedisConnection, namespace: str
) -> None:
    earlier = json.dumps([1_000_000, "view", "a", 2.0, 9.5])
    await connection.client.zadd(f"{namespace}:history:ann", {earlier: 1_000_000})

    live = histories(connection, namespace)
    await live.record([event("b", 2)])

    assert await live.read("ann") == [event("a", 1), event("b", 2)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"\xff",
            b"{",
            b"null",
            b"[1]",
            b'["1","view","a"]',
            b"[1,2,3]",
            b'[1,"view",["a"]]',
        ),
        *(b'[1e99,"view","a"]', b'[99999999999999999999,"view","a"]', b"[" * 9_999),
    ],
)
async def test_an_event_that_cannot_be_read_is_left_out_counted_and_logged_without_its_user(
    connection: RedisConnection, namespace: str, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    noted: list[str] = []
    live = histories(connection, namespace, noted=noted)
    await live.record([event("a", 1), event("b", 3)])
    await connection.client.zadd(f"{namespace}:history:ann", {text: 2_000_000})

    for _ in range(2):
        assert await live.read("ann") == [event("a", 1), event("b", 3)]
    assert noted == ["event", "event"]
    (line,) = caplog.messages
    assert line.startswith("a live event in Redis cannot be read (")
    assert "ann" not in line.replace("cannot", "")


async def test_a_history_of_another_type_counts_as_empty(
    connection: RedisConnection, namespace: str
) -> None:
    noted: list[str] = []
    await connection.client.set(f"{namespace}:history:ann", "no sorted set")

    assert await histories(connection, namespace, noted=noted).read("ann") == []
    assert noted == ["event"]


async def test_a_connection_that_is_cut_anywhere_leaves_each_user_whole_or_untouched(
    redis_server: EmbeddedRedis, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    """A user is whole with the new events, without the event that they push out, and a TTL."""
    users = [f"user-{number}" for number in range(6)]
    events = [event(item, n, user) for user in users for n, item in enumerate("abc", start=1)]
    outcomes: set[int] = set()
    async with running_proxy(redis_server.url, tmp_path) as proxy:
        size = 0
        for share in (1.0, *(n / 16 for n in range(1, 16))):
            folder = f"{namespace}:{share}"
            around = RedisConnection(proxy.url, timeout_s=2)
            direct = histories(connection, folder, max_events=3, ttl_s=60)
            await direct.record([event("old", 0, user) for user in users])
            for user in users:
                await connection.client.persist(f"{folder}:history:{user}")
            await around.probe()
            proxy.forwarded, proxy.cut_after = 0, int(size * share) if size else None

            call = histories(around, folder, max_events=3, ttl_s=60).record(events)
            if size:
                with pytest.raises(UnavailableError):
                    await call
            else:
                assert await call == len(events)
                size = proxy.forwarded

            whole = 0
            for user in users:
                items = [one.item_id for one in await direct.read(user)]
                ttl = await connection.client.ttl(f"{folder}:history:{user}")
                assert (items, ttl > 0) in ((["a", "b", "c"], True), (["old"], False))
                whole += ttl > 0
            outcomes.add(whole)
            assert await direct.record(events) == len(events) - 3 * whole  # sent again: the rest
            assert await direct.record(events) == 0
            proxy.cut_after = None
            await around.close()
    assert outcomes > {0, 3, 6}


async def test_without_redis_histories_are_neither_written_nor_read() -> None:
    away = RedisConnection("redis://127.0.0.1:1/0", timeout_s=0.2)
    live = histories(away, "")

    with pytest.raises(UnavailableError):
        await live.record([event("a", 1)])
    with pytest.raises(UnavailableError):
        await live.read("ann")
    await away.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.builds(
        Event,
        st.text(min_size=1, max_size=8),
        st.text(min_size=1, max_size=8),
        st.text(min_size=1, max_size=8),
        st.integers(0, 2**52).map(from_us),
    )
)
async def test_any_event_comes_back_as_it_was(connection: RedisConnection, one: Event) -> None:
    live = histories(connection, uuid.uuid4().hex)

    assert await live.record([one]) == 1
    assert await live.read(one.user_id) == [one]
