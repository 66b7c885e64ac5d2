"""Health for orchestrators: the service as a whole, and each thing it depends on."""

import asyncio

from grpc_health.v1 import health, health_pb2

from serving.state.connection import RedisConnection

SERVICE = "recsys.v1.Recommender"
REDIS = "redis"
_POLL_S = 0.1

_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class Health:
    """Keeps the standard health service up to date.

    "" and "recsys.v1.Recommender" serve until the stop begins: without Redis the service still
    answers, degraded. "redis" tells whether Redis answers, for alerts.

    Args:
        connection: To Redis.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._connection = connection
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say that the service serves, and follow Redis."""
        await self.servicer.set(SERVICE, _STATUS[True])
        await self.servicer.set(REDIS, _STATUS[self._connection.available])
        self._task = asyncio.create_task(self._watch(self._connection.available))

    async def drain(self) -> None:
        """Say that no new calls are wanted, for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.servicer.enter_graceful_shutdown()

    async def _watch(self, told: bool) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            if self._connection.available != told:
                told = self._connection.available
                await self.servicer.set(REDIS, _STATUS[told])
