import os
import signal
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from serving.connection import RedisConnection
from serving.embedded_redis import EmbeddedRedis
from serving.errors import UnavailableError


@pytest.mark.parametrize("url", ["embeded", "http://host", "redis://host:port", ""])
def test_what_is_no_url_says_what_one_looks_like(url: str) -> None:
    with pytest.raises(ConfigError, match="a URL such as redis://host:6379/0, got"):
        RedisConnection(url, timeout_s=1)


async def test_a_lost_redis_is_one_error_then_refused_at_once_then_back(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    connection = RedisConnection(server.url, timeout_s=1)
    assert await connection.probe()
    server.stop()

    with (
        pytest.raises(UnavailableError, match="Redis does not answer now"),
        connection.translated(),
    ):
        await connection.client.get("key")
    assert not connection.available
    with pytest.raises(UnavailableError, match="keeps trying"), connection.translated():
        pytest.fail("nothing may be sent while Redis is known to be away")
    assert not await connection.probe()

    server.start()
    assert await connection.probe()
    with connection.translated():
        assert await connection.client.get("key") is None
    await connection.close()
    server.stop()


async def test_a_redis_that_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url, timeout_s=0.1)
        await connection.probe()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError), connection.translated():
                await connection.client.get("key")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await connection.close()


async def test_a_mistake_of_ours_is_not_taken_for_an_outage(connection: RedisConnection) -> None:
    with pytest.raises(Exception, match="unknown command"), connection.translated():
        await connection.client.execute_command("NONSENSE")

    assert connection.available
