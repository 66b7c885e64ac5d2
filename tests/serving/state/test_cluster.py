"""All that is kept in Redis, on a Redis Cluster: its commands may not mix nodes."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis

from recsys.answers import Event
from recsys.data.timestamps import from_us
from recsys.ranking.live_counts import LiveCount
from serving.engine.cached_rows import SharedRows
from serving.state.changelog import LiveCatalogue
from serving.state.changes import Change
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import find_redis_server
from serving.state.event_counts import Counted, EventCounts
from serving.state.event_export import export_events
from serving.state.event_log import EventLog
from serving.state.histories import LiveHistories
from serving.state.records import ItemRecord, Written
from serving.state.unreadable import Unreadable

record_of = partial(ItemRecord, written=Written(at_us=1))
NOTED = Unreadable(lambda kind: None)


def free_port() -> int:
    """Return a port that is free together with the cluster bus's, 10,000 above it."""
    for port in range(21_000, 50_000):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in (port, port + 10_000):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise RuntimeError("no free pair of ports")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a cluster of three nodes."""
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / name)) for name in "abc"]
        for number, (client, _) in enumerate(nodes):
            slots = range(number * 5462, min((number + 1) * 5462, 16_384))
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0][1])
        deadline = time.monotonic() + 20
        while not all(is_complete(client) for client, _ in nodes):
            assert time.monotonic() < deadline, "the cluster must form"
            time.sleep(0.05)
        yield f"redis+cluster://127.0.0.1:{nodes[0][1]}"


def is_complete(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "3")


@contextlib.contextmanager
def running_node(folder: Path) -> Iterator[tuple[redis.Redis, int]]:
    folder.mkdir()
    port = free_port()
    arguments = ["--port", str(port), "--cluster-enabled", "yes", "--dir", str(folder)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([find_redis_server(), *arguments, "--save", ""], **silent) as process:
        client = redis.Redis(port=port)
        try:
            wait_for_answer(client, process)
            yield client, port
        finally:
            client.close()
            process.terminate()


def wait_for_answer(client: redis.Redis, process: subprocess.Popen[bytes]) -> None:
    """Return once the node answers, within 30 s."""
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, f"the node ended with status {process.returncode}"
        assert time.monotonic() < deadline, "the node must answer within 30 s"
        with contextlib.suppress(redis.ConnectionError):
            client.ping()
            return
        time.sleep(0.02)


@pytest.fixture
async def connection(cluster: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(cluster, timeout_s=2)
    assert await connection.probe()
    yield connection
    await connection.close()


async def test_histories_of_users_on_all_nodes(connection: RedisConnection) -> None:
    live = LiveHistories(connection, namespace="shop", max_events=5, ttl_s=60, unreadable=NOTED)
    events = [Event(f"user-{user}", "mug", "view", from_us(user)) for user in range(30)]

    assert await live.record(events) == 30
    assert await live.record(events) == 0
    for user in range(30):
        assert await live.read(f"user-{user}") == [
            Event(f"user-{user}", "mug", "view", from_us(user))
        ]


async def test_events_are_logged_counted_and_exported(
    connection: RedisConnection, tmp_path: Path
) -> None:
    found: dict[str, LiveCount] = {}

    async def apply(counts: Mapping[str, LiveCount]) -> None:
        found.update(counts)

    spec = Counted(0, 30.0, {"view": False})
    counts = EventCounts(connection, namespace="log", counted=spec, apply=apply)
    await counts.read()
    log = EventLog(connection, namespace="log", max_events=1_000)
    events = [Event(f"user-{user}", "mug", "view", datetime.now(UTC)) for user in range(30)]

    assert [await log.append(events), await log.append(events)] == [30, 0]
    await counts.read()
    assert found["mug"].users == pytest.approx(30, rel=1e-3)
    for n_events in (30, 0):
        assert (await export_events(connection, tmp_path, namespace="log")).n_events == n_events


async def test_a_burst_at_one_node_waits_for_its_turn(connection: RedisConnection) -> None:
    live = LiveHistories(connection, namespace="shop", max_events=5, ttl_s=60, unreadable=NOTED)

    assert await asyncio.gather(*(live.read("nobody") for _ in range(256))) == [[]] * 256


async def test_embeddings_on_all_nodes(connection: RedisConnection) -> None:
    rows = SharedRows(
        connection,
        prefix="v1:",
        dim=2,
        ttl_s=60,
        on_bad_row=lambda: None,
        on_refused=lambda: None,
    )
    for number in range(30):
        await rows.put(str(number), np.full(2, number, dtype=np.float32))

    for number in range(30):
        row = await rows.get(str(number))
        assert row is not None
        assert row.tolist() == [number, number]


async def test_the_live_catalogue_and_its_followers(
    cluster: str, connection: RedisConnection
) -> None:
    seen: list[str] = []

    async def apply(records: Sequence[ItemRecord]) -> None:
        seen.extend(record.item_id for record in records)

    async def revert(item_ids: Sequence[str]) -> None:
        pytest.fail(f"nothing was lost, got {item_ids}")

    follower = RedisConnection(cluster, timeout_s=2)
    live = LiveCatalogue(
        connection, follower, namespace="shop", apply=apply, revert=revert, unreadable=NOTED
    )
    await live.start()
    await live.write([Change(record_of("mug"), b"picture"), Change(record_of("lamp"))], timeout_s=2)

    assert seen == ["mug", "lamp"]
    assert await live.picture("mug") == b"picture"
    assert (await live.look_up(["lamp", "chair"])).records == [record_of("lamp"), None]
    await live.stop()

    seen.clear()
    again = LiveCatalogue(
        connection, follower, namespace="shop", apply=apply, revert=revert, unreadable=NOTED
    )
    await again.start()
    assert sorted(seen) == ["lamp", "mug"]
    await again.stop()
    await follower.close()


async def test_a_cluster_that_is_not_there_is_away() -> None:
    connection = RedisConnection("redis+cluster://127.0.0.1:1", timeout_s=0.2)

    assert not await connection.probe()
    await connection.close()
