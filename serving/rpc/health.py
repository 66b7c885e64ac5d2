"""Health for orchestrators: of the service, and of the Redis that it needs."""

import asyncio

from grpc_health.v1 import health, health_pb2

from serving.state.connection import RedisConnection

SERVICE = "recsys.v1.Recommender"
REDIS = "redis"
LIVENESS = "liveness"
_POLL_S = 0.1

_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class Health:
    """Keeps the standard health service up to date.

    "" and "recsys.v1.Recommender" are for readiness: SERVING until the stop begins, because the
    service answers without Redis, too. "liveness" is SERVING until the process ends, for whoever
    would restart a service that does not answer: calls that end during a stop are no reason.
    "redis" is SERVING while Redis answers, for alerts.

    Args:
        connection: Connection to Redis.
        notice_s: Time that others get to see that the service stops, in seconds.
    """

    def __init__(self, connection: RedisConnection, *, notice_s: float) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._connection = connection
        self._notice_s = notice_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Report that the service serves, and follow the state of Redis."""
        for name in (SERVICE, LIVENESS):
            await self.servicer.set(name, _STATUS[True])
        await self.servicer.set(REDIS, _STATUS[self._connection.available])
        self._task = asyncio.create_task(self._watch(self._connection.available))

    async def drain(self) -> None:
        """Report that the service is about to take no more calls, and wait until others saw it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in ("", SERVICE, REDIS):
            await self.servicer.set(name, _STATUS[False])
        await asyncio.sleep(self._notice_s)

    async def _watch(self, reported: bool) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            if self._connection.available != reported:
                reported = self._connection.available
                await self.servicer.set(REDIS, _STATUS[reported])
