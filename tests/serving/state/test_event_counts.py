"""Counts of users in a real Redis, compared with their definition as loops."""

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.answers import Event
from recsys.ranking.live_counts import SHORT, LiveCount
from serving.client import AsyncClient
from serving.state.connection import RedisConnection
from serving.state.event_counts import Counted, EventCounts, count_keys
from serving.state.event_log import EventLog
from tests.serving.waiting import eventually

WINDOW_DAYS = 30.0
NOW = datetime.now(UTC)
SINCE = NOW - timedelta(days=50)
KINDS = {"view": False, "purchase": True}
SPEC = Counted(int(SINCE.timestamp() * 1e6), WINDOW_DAYS, KINDS)


def event(user: int, item: str, kind: str = "view", days_ago: float = 1.0) -> Event:
    return Event(f"user-{user}", item, kind, NOW - timedelta(days=days_ago))


def defined(events: Sequence[Event]) -> dict[str, LiveCount]:
    """Return the counts of events that arrive in this order, by their definition."""
    sums: dict[str, list[float]] = {}
    met: set[tuple[str, str, bool]] = set()
    for one in events:
        assert one.timestamp is not None
        if one.kind not in KINDS or one.timestamp < SINCE:
            continue
        age = (datetime.now(UTC) - one.timestamp) / timedelta(days=1)
        weights = [math.exp(-age / (WINDOW_DAYS * share)) for share in (SHORT, 1.0)]
        counts = sums.setdefault(one.item_id, [0.0] * 4)
        for is_bought in {False, KINDS[one.kind]}:
            if (one.user_id, one.item_id, is_bought) not in met:
                met.add((one.user_id, one.item_id, is_bought))
                for place, weight in enumerate(weights):
                    counts[2 * is_bought + place] += weight
    return {item_id: LiveCount(*counts) for item_id, counts in sums.items()}


async def counted(
    connection: RedisConnection, namespace: str, calls: Sequence[Sequence[Event]], **bounds: int
) -> Mapping[str, LiveCount]:
    """Return the counts after some calls."""
    found: dict[str, LiveCount] = {}

    async def apply(counts: Mapping[str, LiveCount]) -> None:
        found.clear()
        found.update(counts)

    log = EventLog(connection, namespace=namespace, max_events=10_000, **bounds)
    counts = EventCounts(connection, namespace=namespace, counted=SPEC, apply=apply)
    await counts.read()
    for events in calls:
        await log.append(events)
    await counts.read()
    return found


events = st.builds(
    event,
    st.integers(0, 3),
    st.sampled_from(["mug", "lamp", "schön"]),
    st.sampled_from(["view", "purchase", "impression"]),
    st.floats(0, 60),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(events, max_size=6), max_size=6))
async def test_counts_are_as_they_are_defined_in_whatever_order_events_come(
    connection: RedisConnection, calls: list[list[Event]]
) -> None:
    found = await counted(connection, uuid.uuid4().hex, calls)

    expected = defined([one for some in calls for one in some])
    assert found.keys() == expected.keys()
    for item_id, count in expected.items():
        assert found[item_id] == pytest.approx(count, rel=1e-4)


async def test_a_user_who_reloads_a_page_is_one_user_and_a_repeated_call_changes_nothing(
    connection: RedisConnection, namespace: str
) -> None:
    reloads = [event(1, "mug", days_ago=0.01 * number) for number in range(50)]
    others = [event(user, "lamp", days_ago=0.0) for user in range(3)]
    found = await counted(connection, namespace, [reloads, others, others, reloads])

    assert found["lamp"] == pytest.approx(defined(others)["lamp"], rel=1e-4)
    assert found["mug"].users <= 1


async def test_the_largest_counts_stay_where_there_are_too_many_items(
    connection: RedisConnection, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.state.event_log.MAX_ITEMS", 5)
    calls = [[event(user, f"item-{item}") for user in range(item + 1)] for item in range(20)]
    found = await counted(connection, namespace, list(reversed(calls)))

    assert sorted(found) == [f"item-{item}" for item in (15, 16, 17, 18, 19)]


async def test_a_bundle_that_nobody_asks_for_is_no_longer_counted_for(
    connection: RedisConnection, namespace: str
) -> None:
    counting, asked, *_ = count_keys(namespace)
    await counted(connection, namespace, [[event(1, "mug", "purchase")]])
    old = SPEC.name()
    await connection.client.hset(asked, old, 1)
    newer = SPEC._replace(since_us=SPEC.since_us + 1)

    async def ignore(counts: Mapping[str, LiveCount]) -> None: ...

    await EventCounts(connection, namespace=namespace, counted=newer, apply=ignore).read()

    assert await connection.client.hkeys(counting) == [newer.name().encode()]
    assert await connection.client.keys(f"{counting.replace('{', '?')}:{old}*") == []


async def test_what_users_take_now_is_popular_now_and_a_replay_does_not_know(
    client: AsyncClient, shop: Any
) -> None:
    before = await client.recommend("nobody", k=3, now=shop.end)
    await client.record_events([Event(f"new-{user}", "green-lamp", "view") for user in range(60)])

    async def is_first() -> bool:
        return (await client.recommend("nobody", k=3)).results[0].item_id == "green-lamp"

    await eventually(is_first)
    assert (await client.rank("nobody", ["red-mug", "green-lamp"])).results[0].item_id == (
        "green-lamp"
    )
    assert await client.recommend("nobody", k=3, now=shop.end) == before
    assert before.results[0].item_id != "green-lamp"
