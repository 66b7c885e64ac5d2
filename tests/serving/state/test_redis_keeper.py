import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from serving.errors import StateError
from serving.state.embedded_redis import EmbeddedRedis
from serving.state.redis_keeper import keep_running
from tests.serving.plain_redis import damage
from tests.serving.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> EmbeddedRedis:
    return EmbeddedRedis(tmp_path)


@asynccontextmanager
async def kept(server: EmbeddedRedis, **settings: object) -> AsyncIterator[asyncio.Task[None]]:
    """Run a server and keep it running, with a time scale of tests."""
    with server:
        keeping = asyncio.create_task(keep_running(server, **settings))
        yield keeping
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def killed_and_back(server: EmbeddedRedis) -> None:
    before = server.pid
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: server.pid != before)
    async with redis.asyncio.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as client:

        async def answers() -> bool:
            with contextlib.suppress(redis.ConnectionError):
                return bool(await client.ping())
            return False

        await eventually(answers)
    await asyncio.sleep(0.1)  # for the keeper to notice that it answers


async def test_a_server_that_dies_is_started_again_and_the_reason_logged(
    server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(server, pauses_s=[0]):
        await killed_and_back(server)

    assert "embedded Redis was killed, as systems do when memory runs out" in caplog.text


async def test_a_server_that_dies_again_and_again_is_given_up(server: EmbeddedRedis) -> None:
    async with kept(server, pauses_s=[0, 0]) as keeping:
        for _ in range(2):
            await killed_and_back(server)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StateError, match="died 3 times in a row; it was killed"):
            await keeping


async def test_after_a_calm_time_the_deaths_are_counted_anew(server: EmbeddedRedis) -> None:
    async with kept(server, pauses_s=[0], calm_s=0) as keeping:
        for _ in range(3):
            await killed_and_back(server)
        assert not keeping.done()


async def test_a_server_that_cannot_read_its_data_again_is_given_up_with_the_remedy(
    server: EmbeddedRedis,
) -> None:
    async with kept(server) as keeping:
        damage(server.folder)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StateError, match=r"Bad file format.*redis-check-aof"):
            await keeping


async def test_a_server_whose_disk_is_full_waits_for_space(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(server, pauses_s=[0]) as keeping:
        with monkeypatch.context() as full:
            full.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
            os.kill(server.pid, signal.SIGKILL)
            await eventually(lambda: "is full; embedded Redis waits for space" in caplog.text)
            await asyncio.sleep(0.1)
            assert server.end is not None
        await eventually(lambda: server.end is None)
        assert not keeping.done()


async def test_a_server_that_was_stopped_stays_stopped(server: EmbeddedRedis) -> None:
    async with kept(server, pauses_s=[0]) as keeping:
        server.stop()
        await asyncio.sleep(0.2)
        assert not keeping.done()
        assert not (server.folder / "redis.sock").exists()
