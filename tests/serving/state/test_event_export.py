"""Exports of the event log of a real Redis, which are killed where it hurts most."""

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.answers import Event
from recsys.data.loading import load_events
from recsys.data.timestamps import from_us
from recsys.errors import FileAccessError, InvalidArgumentError
from recsys.schema import EventSchema
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from serving.state.event_export import SCHEMA, export_events
from serving.state.event_log import EventLog, log_keys

START_S = 1_700_000_000
NOW = from_us(2_000_000_000_000_000)
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from serving.state import event_export
from serving.state.connection import RedisConnection

url, folder, namespace, point = sys.argv[1:]

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(event_export, point, die)
asyncio.run(event_export.export_events(
    RedisConnection(url, timeout_s=20), Path(folder), namespace=namespace
))
"""


def event(second: int) -> Event:
    return Event(f"user-{second % 7}", "mug", "view", from_us((START_S + second) * 1_000_000))


def exported(*folders: Path) -> list[int]:
    """Return which events are in the files of some folders, in the order of the files."""
    files = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    seconds = [
        (pl.read_parquet(file)["timestamp"].dt.epoch("s") - START_S).to_list() for file in files
    ]
    return [one for some in seconds for one in some]


@pytest.fixture
def log(connection: RedisConnection, namespace: str) -> EventLog:
    return EventLog(connection, namespace=namespace, max_events=100_000)


async def test_exports_continue_where_the_last_one_ended(
    log: EventLog, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    assert (await export_events(connection, tmp_path, namespace=namespace)).file is None
    for start in (0, 100, 200):
        await log.append([event(second) for second in range(start, start + 100)])
        found = await export_events(connection, tmp_path, namespace=namespace)
        assert (found.n_events, found.n_lost) == (100, 0)
        assert found.file == max(tmp_path.glob("events-*.parquet"))
        assert (await export_events(connection, tmp_path, namespace=namespace)).file is None
    assert exported(tmp_path) == list(range(300))


async def test_an_exported_file_is_an_events_table(
    log: EventLog, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    shown = Event("ann", "mug", "impression", from_us(START_S * 1_000_000), 2.0, 9.5, 0.25, "home")
    await log.append([shown, event(1)])
    found = await export_events(connection, tmp_path, namespace=namespace)
    assert found.file is not None

    table = pl.read_parquet(found.file)
    assert dict(table.schema) == SCHEMA
    assert table.row(0, named=True) == vars(shown)
    loaded = load_events(found.file, pl.Series(["mug"]), now=NOW)
    assert loaded.frame.equals(table[1:].select(EventSchema.column_names()))
    assert (loaded.report.n_rows, loaded.report.counts()) == (2, {})


@pytest.mark.parametrize("point", ["_read", "_end"])
async def test_a_killed_export_neither_loses_nor_doubles_an_event(
    point: str,
    log: EventLog,
    redis_server: EmbeddedRedis,
    connection: RedisConnection,
    namespace: str,
    tmp_path: Path,
) -> None:
    """It is killed before the file is written, and between the file and the note of its end."""
    await log.append([event(second) for second in range(100)])
    command = [sys.executable, "-c", KILLED, redis_server.url, str(tmp_path), namespace, point]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert exported(tmp_path) == ([] if point == "_read" else list(range(100)))
    await log.append([event(second) for second in range(100, 150)])

    with pytest.raises(
        InvalidArgumentError, match=r"export into .* was not finished; run it again"
    ):
        await export_events(connection, tmp_path / "other", namespace=namespace)
    for n_events in (100, 50):
        found = await export_events(connection, tmp_path, namespace=namespace)
        assert found.n_events == n_events
    assert exported(tmp_path) == list(range(150))


async def test_a_file_counts_that_redis_does_not_know_of(
    log: EventLog, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    await log.append([event(second) for second in range(100)])
    await export_events(connection, tmp_path, namespace=namespace)
    await connection.client.hdel(log_keys(namespace)[1], "cursor")
    other = tmp_path / "events-00000000-9999999999999-0.parquet"  # of another log
    other.touch()
    assert (await export_events(connection, tmp_path, namespace=namespace)).file is None
    await log.append([event(100)])

    assert (await export_events(connection, tmp_path, namespace=namespace)).n_events == 1
    other.unlink()
    assert exported(tmp_path) == list(range(101))


async def test_another_folder_takes_over_an_unfinished_export_if_asked_to(
    log: EventLog, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    await log.append([event(second) for second in range(10)])
    gone, other = tmp_path / "gone", tmp_path / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.state.event_export._read", None)
        with pytest.raises(TypeError):
            await export_events(connection, gone, namespace=namespace)

    found = await export_events(connection, other, namespace=namespace, takes_over=True)
    assert found.n_events == 10
    assert exported(gone, other) == list(range(10))


async def test_lost_events_are_reported_once(
    connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    log = EventLog(connection, namespace=namespace, max_events=300)
    await log.append([event(second) for second in range(1_000)])

    first = await export_events(connection, tmp_path, namespace=namespace)
    assert first.n_events + first.n_lost == 1_000
    assert first.n_lost >= 500
    await log.append([event(second) for second in range(1_000, 1_300)])
    second_export = await export_events(connection, tmp_path, namespace=namespace)
    assert (second_export.n_events, second_export.n_lost) == (300, 0)


async def test_an_entry_that_cannot_be_read_is_left_out_and_counted(
    log: EventLog, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    await log.append([event(0)])
    for fields in ({"e": "[1]"}, {"other": "1"}):
        await connection.client.xadd(log_keys(namespace)[0], fields)
    await log.append([event(1)])

    found = await export_events(connection, tmp_path, namespace=namespace)
    assert (found.n_events, found.n_unreadable) == (2, 2)


async def test_a_folder_that_cannot_be_written_leaves_the_events_for_another(
    log: EventLog, connection: RedisConnection, namespace: str, tmp_path: Path
) -> None:
    await log.append([event(0)])
    (tmp_path / "file").touch()
    with pytest.raises(FileAccessError):
        await export_events(connection, tmp_path / "file", namespace=namespace)

    assert (await export_events(connection, tmp_path, namespace=namespace)).n_events == 1
