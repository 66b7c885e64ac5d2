"""Ways in which a Redis that answers refuses writes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from serving.state.connection import RedisConnection
from tests.serving.waiting import eventually

Refuse = Callable[[RedisConnection, Path], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def missing_replicas(connection: RedisConnection, folder: Path) -> AsyncIterator[None]:
    """Ask for a replica that is not there."""
    await connection.client.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        await connection.client.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def unable_to_save(connection: RedisConnection, folder: Path) -> AsyncIterator[None]:
    """Let a snapshot fail in the server's folder; writes stop as by default."""
    (folder / "dump.rdb" / "in the way").mkdir(parents=True)
    await connection.client.config_set("save", "3600 1")
    await connection.client.bgsave()

    async def failed() -> bool:
        status = (await connection.client.info("persistence"))["rdb_last_bgsave_status"]
        return bool(status == "err")

    await eventually(failed)
    try:
        yield
    finally:  # or the server would not stop: it must save first
        await connection.client.config_set("save", "")


REFUSALS = [pytest.param(one, id=one.__name__) for one in (missing_replicas, unable_to_save)]
