"""Start and stop the service."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.recsys.v1 import admin_pb2_grpc, recommender_pb2_grpc
from recsys.bundle import Bundle
from recsys.bundle.manifest import MANIFEST
from recsys.errors import ConfigError
from recsys.recommender import Recommender
from serving.addresses import check_free
from serving.config import EMBEDDED, ServiceConfig, build_config
from serving.engine.assembly import running_engine
from serving.engine.device_table import check_device
from serving.engine.versions import Versions
from serving.keepalive import SERVER_OPTIONS
from serving.rpc.admin import AdminServicer
from serving.rpc.health import SERVICE, Health
from serving.rpc.interceptor import Boundary
from serving.rpc.listening import Listener
from serving.rpc.rates import RateLimits
from serving.rpc.routing import Router
from serving.rpc.servicer import Limits
from serving.state.changelog import BLOCK_S
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from serving.state.redis_check import check_redis
from serving.state.redis_keeper import keep_running
from serving.state.redis_url import build_client, without_password
from serving.telemetry import MetricsEndpoint, Telemetry

logger = logging.getLogger(__name__)

METRICS_HOST = "127.0.0.1"
ADMIN = "recsys.v1.Admin"


class Service:
    """A running service, from ``start`` to ``stop``.

    Attributes:
        address: host:port that clients call.
        telemetry: Metrics of the service.
        versions: Bundles of the service.
        redis: Embedded Redis; None where the service uses another.
        metrics: Prometheus endpoint; None without ``metrics_port``.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.address = ""
        self.telemetry = telemetry
        self.versions: Versions
        self.redis: EmbeddedRedis | None = None
        self.metrics: MetricsEndpoint | None = None
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Closed in reverse order, so calls in flight end before the parts that they use.
        self._resources = AsyncExitStack()

    @classmethod
    async def start(cls, bundle_path: str | Path, config: ServiceConfig) -> Self:
        """Return a service that answers calls.

        Args:
            bundle_path: Bundle, or folder of bundles, of which the latest is taken.
            config: Settings of the service.

        Raises:
            BundleError: If the bundle is missing, damaged or of another format.
            ConfigError: If the address, certificate, device or URL of Redis cannot be used.
            StateError: If the state folder cannot be used or Redis does not answer.
        """
        # Opening a bundle takes seconds, which must not block the event loop.
        listener, recommender = await asyncio.to_thread(_open, bundle_path, config)
        service = cls(Telemetry())
        try:
            await service._start(listener, recommender, config)
        except BaseException:
            await service._resources.aclose()
            raise
        logger.info("serving bundle %s on %s", recommender.version, service.address)
        return service

    async def stop(self) -> None:
        """Refuse new calls, finish those in flight within ``drain_s``, and close everything."""
        await self._resources.aclose()
        logger.info("service stopped")

    async def failure(self) -> None:
        """Wait until the service cannot work any more, and raise the reason.

        Raises:
            StateError: If the embedded Redis died and cannot be started again.
        """
        await asyncio.shield(self._broken)

    async def _start(
        self, listener: Listener, recommender: Recommender, config: ServiceConfig
    ) -> None:
        url = config.redis
        if url == EMBEDDED:
            self.redis = EmbeddedRedis(config.state, max_bytes=config.redis_bytes)
            await self._run_redis(self.redis)
            url = self.redis.url
        connection = self._connect(
            url, timeout_s=config.redis_timeout_s, on_asked=self.telemetry.asked_redis
        )
        await check_redis(
            connection,
            shown=without_password(url),
            namespace=config.namespace,
            with_writes=self.redis is None,
        )
        follower = self._connect(url, timeout_s=config.redis_timeout_s + BLOCK_S)
        self.versions = await Versions(
            recommender.bundle.path.parent,
            read=partial(_read, config=config),
            running=lambda one: running_engine(one, connection, follower, config, self.telemetry),
            on_served=self.telemetry.serves,
        ).start(recommender)
        self._resources.push_async_callback(self.versions.close)
        if config.watch:
            watching = asyncio.create_task(self.versions.watch())
            self._resources.push_async_callback(_cancel, watching)
        await self._listen(listener, connection, config)
        if config.metrics_port is not None:
            self.metrics = MetricsEndpoint(
                self.telemetry, host=METRICS_HOST, port=config.metrics_port
            )
            self._resources.push_async_callback(asyncio.to_thread, self.metrics.close)

    async def _run_redis(self, server: EmbeddedRedis) -> None:
        starting = asyncio.create_task(asyncio.to_thread(server.start))

        async def stop() -> None:
            await asyncio.wait({starting})  # the thread cannot be cancelled, and may yet start it
            await asyncio.to_thread(server.stop)

        self._resources.push_async_callback(stop)
        await asyncio.shield(starting)
        self._broken = asyncio.create_task(keep_running(server))
        self._resources.push_async_callback(_cancel, self._broken)

    def _connect(
        self, url: str, *, timeout_s: float, on_asked: Callable[[float], None] | None = None
    ) -> RedisConnection:
        connection = RedisConnection(url, timeout_s=timeout_s, on_asked=on_asked)
        self._resources.push_async_callback(connection.close)
        return connection

    async def _listen(
        self,
        listener: Listener,
        connection: RedisConnection,
        config: ServiceConfig,
    ) -> None:
        server = grpc.aio.server(
            interceptors=[
                Boundary(self.telemetry, listener.tokens, RateLimits(config.calls_per_s))
            ],
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.so_reuseport", 0),  # a second service on the port is refused
                *SERVER_OPTIONS,
            ],
        )
        limits = Limits(config.max_image_bytes)
        router = Router(self.versions, self.telemetry, limits)  # type: ignore[abstract]
        recommender_pb2_grpc.add_RecommenderServicer_to_server(router, server)
        admin_pb2_grpc.add_AdminServicer_to_server(AdminServicer(self.versions), server)
        reporter = Health(connection, notice_s=config.notice_s)
        health_pb2_grpc.add_HealthServicer_to_server(reporter.servicer, server)
        reflection.enable_server_reflection(
            (SERVICE, ADMIN, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        address = listener.listen(server)
        await reporter.start()
        await server.start()
        self._resources.push_async_callback(_drain, server, config.drain_s)
        self._resources.push_async_callback(reporter.drain)
        self.address = address


def serve(
    bundle_path: str | Path,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_config: Callable[[ServiceConfig], None] | None = None,
    **settings: Any,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; a second signal ends calls in flight at once.

    Args:
        bundle_path: Bundle, or folder of bundles, of which the latest is taken.
        on_ready: Function that gets the address once the service answers.
        on_config: Function that gets the settings before anything else happens.
        **settings: Fields of ``ServiceConfig``; those that are None or absent come from the
            environment, then from the defaults.

    Raises:
        ConfigError: If the settings cannot be used; the message lists all problems.
        BundleError: If the bundle is missing, damaged or of another format.
        StateError: If the state folder cannot be used or Redis does not answer, or the embedded
            Redis dies later and cannot be started again.
    """
    config = build_config(os.environ, **settings)
    if on_config is not None:
        on_config(config)
    asyncio.run(_serve(bundle_path, config, on_ready))


async def _serve(
    bundle_path: str | Path, config: ServiceConfig, on_ready: Callable[[str], None] | None
) -> None:
    loop, signals = asyncio.get_running_loop(), asyncio.Queue[None]()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    starting = asyncio.create_task(Service.start(bundle_path, config))
    if await _unless_signalled(starting, signals):
        service = starting.result()
        if on_ready is not None:
            on_ready(service.address)
        failing = asyncio.create_task(service.failure())
        failed = await _unless_signalled(failing, signals)
        await _unless_signalled(asyncio.create_task(service.stop()), signals)
        if failed:
            failing.result()


async def _unless_signalled(task: asyncio.Task[Any], signals: asyncio.Queue[None]) -> bool:
    """Return True once a task has ended, or False after a signal, which cancels it."""
    signalled = asyncio.create_task(signals.get())
    await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        signalled.cancel()
        return True
    task.cancel()
    await asyncio.wait({task})
    return False


async def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _drain(server: grpc.aio.Server, drain_s: float) -> None:
    """Finish the calls in flight; when cancelled, end them now."""
    try:
        await server.stop(drain_s)
    except asyncio.CancelledError:
        await server.stop(None)
        raise


def _open(bundle_path: str | Path, config: ServiceConfig) -> tuple[Listener, Recommender]:
    """Check the settings, which takes moments, and open the bundle, which takes seconds."""
    listener = Listener(config)
    if config.metrics_port is not None:
        check_free("metrics_port", METRICS_HOST, config.metrics_port)
    if config.redis != EMBEDDED:
        build_client(config.redis, config.redis_timeout_s)
    check_device(config.device)
    if config.watch and (Path(bundle_path) / MANIFEST).is_file():
        raise ConfigError(
            f"watch needs a folder of bundles, but {bundle_path} is a bundle; serve the folder "
            "that it is in"
        )
    return listener, _read(Path(bundle_path), config=config)


def _read(path: Path, *, config: ServiceConfig) -> Recommender:
    """Open a bundle, or the latest in a folder of bundles."""
    return Recommender(Bundle(path), device=config.device, exact_up_to=config.exact_up_to)
