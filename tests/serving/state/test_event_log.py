"""The event log in a real Redis."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.answers import Event
from recsys.data.timestamps import from_us
from serving.errors import UnavailableError
from serving.state.connection import RedisConnection
from serving.state.event_log import EventLog, decode_event, encode_event, log_keys
from serving.state.unreadable import UnreadableError


def event(second: int, user_id: str = "ann", **details: Any) -> Event:
    return Event(user_id, "mug", "view", from_us(second * 1_000_000), **details)


async def stored(connection: RedisConnection, namespace: str) -> list[Event]:
    entries = await connection.client.xrange(log_keys(namespace)[0])
    return [Event(**decode_event(fields[b"e"])) for _, fields in entries]


async def test_events_are_kept_in_the_order_of_their_arrival_each_once(
    connection: RedisConnection, namespace: str
) -> None:
    log = EventLog(connection, namespace=namespace, max_events=1_000)

    assert await log.append([event(2), event(1), event(2)]) == 2
    assert await log.append([event(1), event(1, "bob")]) == 1
    assert await log.append([event(2, quantity=5.0)]) == 0  # quantity does not tell events apart
    assert await stored(connection, namespace) == [event(2), event(1), event(1, "bob")]


async def test_the_latest_events_are_recognised_and_what_was_seen_stays_bounded(
    connection: RedisConnection, namespace: str
) -> None:
    log = EventLog(connection, namespace=namespace, max_events=10_000, remembered=10)
    for second in range(100):
        await log.append([event(second)])
        assert await log.append([event(max(0, second - 9))]) == 0
        sizes = [await connection.client.scard(key) for key in log_keys(namespace)[2:]]
        assert max(sizes) <= 10
    assert len(await stored(connection, namespace)) == 100


async def test_a_full_log_drops_the_oldest_events_and_says_so(
    connection: RedisConnection, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[int] = []
    log = EventLog(connection, namespace=namespace, max_events=300, on_lost=lost.append)
    for start in range(0, 1_000, 100):
        await log.append([event(second) for second in range(start, start + 100)])

    kept = await stored(connection, namespace)
    assert 300 <= len(kept) < 500  # Redis drops nodes of 100 entries
    assert kept == [event(second) for second in range(1_000 - len(kept), 1_000)]
    assert sum(lost) == 1_000 - len(kept)
    (line,) = caplog.messages
    assert line.startswith(f"the event log is full, and {lost[0]} events went")


async def test_exported_events_are_not_lost_when_they_go(
    connection: RedisConnection, namespace: str
) -> None:
    lost: list[int] = []
    log = EventLog(connection, namespace=namespace, max_events=300, on_lost=lost.append)
    await log.append([event(second) for second in range(250)])
    await connection.client.hset(log_keys(namespace)[1], "exported", 250)
    await log.append([event(second) for second in range(250, 750)])

    gone = 750 - len(await stored(connection, namespace))
    assert sum(lost) == gone - 250 > 0


async def test_without_redis_nothing_is_stored() -> None:
    away = RedisConnection("redis://127.0.0.1:1/0", timeout_s=0.2)
    with pytest.raises(UnavailableError):
        await EventLog(away, namespace="", max_events=10).append([event(1)])
    await away.close()


words = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=8)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.builds(
        Event,
        *(words, words, words.filter(str.strip), st.integers(0, 2**52).map(from_us)),
        quantity=st.floats(0, 1e12),
        value=st.none() | st.floats(-1e12, 1e12),
        propensity=st.none() | st.floats(0, 1, exclude_min=True),
        placement=st.none() | words,
    )
)
async def test_any_event_comes_back_as_it_was(connection: RedisConnection, one: Event) -> None:
    namespace = uuid.uuid4().hex
    log = EventLog(connection, namespace=namespace, max_events=10)

    assert [await log.append([one]), await log.append([one])] == [1, 0]
    assert await stored(connection, namespace) == [one]


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\xff", b"null", b"[1]", b'["a","b","c","4"]', b'["a","b",3,4]', b"[" * 9_999),
        b'["a","b","c",4,{"price":1}]',
        b'["a","b","c",99999999999999999999]',
    ],
)
def test_a_text_that_is_not_an_event_is_refused(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode_event(text)


def test_an_entry_has_only_what_differs_from_the_defaults() -> None:
    assert json.loads(encode_event(event(1))) == ["ann", "mug", "view", 1_000_000]
    assert json.loads(encode_event(event(1, value=2.5)))[4:] == [{"value": 2.5}]
