"""Keep the embedded Redis running while the service runs."""

import asyncio
import logging
import time
from collections.abc import Sequence

from serving.errors import StateError
from serving.state.embedded_redis import EmbeddedRedis

logger = logging.getLogger(__name__)

_POLL_S = 0.05


async def keep_running(
    server: EmbeddedRedis,
    *,
    pauses_s: Sequence[float] = (0, 1, 2, 4, 8),
    calm_s: float = 60.0,
) -> None:
    """Start a server again whenever it dies, until cancelled.

    Where the disk of its folder is full, it is started once there is space again.

    Args:
        server: A server that was started.
        pauses_s: Pause before each of the starts that follow one another.
        calm_s: Time without a death after which the pauses begin anew.

    Raises:
        StateError: If the server dies again and again, or cannot start with its data.
    """
    deaths, started = 0, time.monotonic()
    while True:
        await asyncio.sleep(_POLL_S)
        end = server.end
        if end is None:
            continue
        deaths = deaths + 1 if time.monotonic() - started < calm_s else 1
        if deaths > len(pauses_s):
            raise StateError(f"embedded Redis died {deaths} times in a row; it {end}")
        pause_s = pauses_s[deaths - 1]
        logger.error("embedded Redis %s; starting it again in %g s", end, pause_s)
        await asyncio.sleep(pause_s)
        await _until_space(server)
        await asyncio.to_thread(server.start_again)
        started = time.monotonic()


async def _until_space(server: EmbeddedRedis) -> None:
    """Wait while the disk is full: the first write would end the server again."""
    if server.has_space:
        return
    logger.error("the disk of %s is full; embedded Redis waits for space", server.folder)
    while not server.has_space:
        await asyncio.sleep(_POLL_S)
