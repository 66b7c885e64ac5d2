import asyncio
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import pytest

from serving.errors import InternalError, OverloadedError, UnavailableError
from serving.state.connection import MAX_COMMANDS, RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from tests.serving.refusals import REFUSALS, Refuse


async def get(connection: RedisConnection) -> Any:
    async with connection.translated():
        return await connection.client.get("key")


async def test_a_lost_redis_is_unavailable_until_it_answers_again(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    connection = RedisConnection(server.url, timeout_s=1)
    assert await connection.probe()
    server.stop()

    with pytest.raises(UnavailableError, match="Redis does not answer now"):
        await get(connection)
    assert not connection.available
    with pytest.raises(UnavailableError, match="keeps trying"):
        await get(connection)
    assert not await connection.probe()

    server.start()
    assert await connection.probe()
    assert await get(connection) is None
    await connection.close()
    server.stop()


async def test_a_redis_that_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url, timeout_s=0.1)
        await connection.probe()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError):
                await get(connection)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await connection.close()


async def test_a_command_that_redis_does_not_know_is_a_defect_and_no_outage(
    connection: RedisConnection,
) -> None:
    with pytest.raises(
        InternalError, match="refused a command of the service: ResponseError; report this"
    ):
        async with connection.translated():
            await connection.client.execute_command("NONSENSE")

    assert connection.available


async def test_a_script_at_a_primary_that_became_a_replica_may_be_called_again(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url, timeout_s=2)
        await connection.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(UnavailableError, match="Redis is a replica by now"):
            async with connection.translated():
                await connection.client.eval("return redis.call('SET', KEYS[1], 1)", 1, "key")
        await connection.close()


async def test_a_burst_of_commands_waits_for_its_turn(connection: RedisConnection) -> None:
    await connection.client.set("key", "value")

    answers = await asyncio.gather(*(get(connection) for _ in range(256)))

    assert answers == [b"value"] * 256
    assert connection.available


async def test_a_burst_at_a_redis_that_hangs_learns_that_it_is_away(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url, timeout_s=0.5)
        await connection.probe()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            burst = (get(connection) for _ in range(256))
            outcomes = await asyncio.gather(*burst, return_exceptions=True)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert {type(outcome) for outcome in outcomes} == {UnavailableError}
        assert not connection.available
        await connection.close()


async def test_a_command_that_waits_too_long_for_its_turn_is_refused(
    redis_server: EmbeddedRedis,
) -> None:
    connection = RedisConnection(redis_server.url, timeout_s=0.05)
    enough = asyncio.Event()

    async def dawdle() -> None:
        async with connection.translated():
            await enough.wait()

    others = [asyncio.create_task(dawdle()) for _ in range(MAX_COMMANDS)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError, match=f"at most {MAX_COMMANDS} commands .* slow down"):
        await get(connection)
    assert connection.available
    enough.set()
    await asyncio.gather(*others)
    await get(connection)
    await connection.close()


async def test_running_out_of_connections_is_not_taken_for_an_outage(
    redis_server: EmbeddedRedis,
) -> None:
    connection = RedisConnection(f"{redis_server.url}?max_connections=1", timeout_s=2)

    outcomes = await asyncio.gather(*(get(connection) for _ in range(9)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} >= {OverloadedError}
    assert not any(isinstance(outcome, UnavailableError) for outcome in outcomes)
    assert all(await asyncio.gather(*(connection.probe() for _ in range(9))))
    assert connection.available
    await connection.close()


async def test_an_error_of_a_pipeline_names_its_code_and_never_its_command(
    connection: RedisConnection, namespace: str
) -> None:
    key = f"{namespace}:caused error: SECRET user"
    await connection.client.set(key, "no sorted set")
    pipeline = connection.client.pipeline(transaction=False)
    pipeline.zadd(key, {"SECRET event": 1.0})

    with pytest.raises(InternalError, match=r"ResponseError WRONGTYPE; .* delete it") as caught:
        async with connection.translated():
            await pipeline.execute()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("in_pipeline", [True, False])
async def test_an_error_inside_a_script_names_its_code(
    connection: RedisConnection, namespace: str, in_pipeline: bool
) -> None:
    await connection.client.set(namespace, "not a sorted set")
    client = connection.client.pipeline(transaction=False) if in_pipeline else connection.client
    script = "return redis.call('ZADD', KEYS[1], 1, 'SECRET')"

    async def run() -> None:
        async with connection.translated():
            await client.eval(script, 1, namespace)
            await client.execute()

    with pytest.raises(InternalError, match=r"ResponseError WRONGTYPE; .* delete it") as caught:
        await run()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("refuse", REFUSALS)
async def test_a_redis_that_refuses_writes_is_available_and_the_error_says_what_to_do(
    tmp_path: Path, refuse: Refuse
) -> None:
    with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url, timeout_s=2)
        async with refuse(connection, tmp_path):
            pipeline = connection.client.pipeline(transaction=False).set("key", "SECRET")
            script = "return redis.call('SET', KEYS[1], ARGV[1])"
            for write in (
                lambda: connection.client.getex("key", ex=1),
                lambda: pipeline.execute(),
                lambda: connection.client.eval(script, 1, "key", "SECRET"),
            ):
                with pytest.raises(
                    UnavailableError, match=r"takes no writes; .* call again"
                ) as caught:
                    async with connection.translated():
                        await write()
                assert "SECRET" not in "".join(traceback.format_exception(caught.value))

            assert await get(connection) is None
            assert await connection.probe()
        await connection.close()


async def test_a_full_redis_says_so_whatever_kind_of_write_finds_out(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url, timeout_s=2)
        await connection.client.config_set("maxmemory", 1)
        pipeline = connection.client.pipeline(transaction=False).set("key", "SECRET")
        script = "return redis.call('SET', KEYS[1], ARGV[1])"
        for write in (
            lambda: connection.client.set("key", "SECRET"),
            lambda: pipeline.execute(),
            lambda: connection.client.eval(script, 1, "key", "SECRET"),
        ):
            with pytest.raises(UnavailableError, match="Redis is full; raise redis_bytes"):
                async with connection.translated():
                    await write()
        assert connection.available
        await connection.close()
