"""The Redis of a service, for commands that read what is in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.config import EMBEDDED, ServiceConfig
from serving.errors import StateError
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis

TIMEOUT_S = 30.0  # of commands that read much at once


@asynccontextmanager
async def opened_redis(config: ServiceConfig) -> AsyncIterator[RedisConnection]:
    """Yield a connection to the Redis that a service with these settings uses.

    An embedded Redis is that of the running service. Where none runs, it is started for the time
    being, and a service that starts meanwhile says which process has its state.

    Raises:
        StateError: If no service has used the state folder, or Redis does not start.
    """
    if config.redis != EMBEDDED:
        async with _connected(config.redis) as connection:
            yield connection
        return
    server = EmbeddedRedis(config.state)
    if not server.has_state:
        raise StateError(
            f"state folder {server.folder} must be that of a service, but no Redis ran in it; set "
            "--state (RECSYS_STATE), or --redis (RECSYS_REDIS) for a Redis of your own"
        )
    if server.is_used:
        async with _connected(server.url) as connection:
            yield connection
        return
    await asyncio.to_thread(server.start)
    try:
        async with _connected(server.url) as connection:
            yield connection
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(url, timeout_s=TIMEOUT_S)
    try:
        yield connection
    finally:
        await connection.close()
