"""Build, start and stop the service over one bundle."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from protos.recsys.v1 import recommender_pb2 as pb
from protos.recsys.v1 import recommender_pb2_grpc as rpc
from recsys.bundle import Bundle
from recsys.errors import ConfigError
from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender
from serving.batcher import Batcher
from serving.boundary import Boundary
from serving.cache import SharedRows
from serving.compute import ComputeThread
from serving.config import ServiceConfig, build_config
from serving.connection import RedisConnection
from serving.device_table import DeviceTable
from serving.embedded_redis import EmbeddedRedis
from serving.embeddings import BundleRows, Content, EmbeddingTiers, Floats
from serving.engine import Engine
from serving.errors import StateError, UnavailableError
from serving.health import SERVICE, Health
from serving.histories import LiveHistories
from serving.live_items import LiveItems
from serving.servicer import Limits, RecommenderServicer
from serving.telemetry import MetricsEndpoint, Telemetry

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"


class Service:
    """A running service. Made by ``Service.start``; stopped by ``stop``."""

    def __init__(self) -> None:
        self.address = ""
        self._resources = AsyncExitStack()

    @classmethod
    async def start(cls, bundle_path: str | Path, config: ServiceConfig) -> Self:
        """Return a service that answers.

        Args:
            bundle_path: A bundle, or a folder of bundles, of which the latest is taken.
            config: Settings.

        Raises:
            BundleError: If the bundle does not verify.
            ConfigError: If the address or the certificate cannot be used.
            StateError: If the state folder cannot be used or Redis does not answer.
        """
        service = cls()
        try:
            await service._start(bundle_path, config)
        except BaseException:
            await service._resources.aclose()
            raise
        return service

    async def stop(self) -> None:
        """Refuse new calls, finish those in flight within ``drain_s``, and let go of everything.

        What was started last is stopped first: a call in flight still has all it needs.
        """
        await self._resources.aclose()
        logger.info("stopped")

    async def _start(self, bundle_path: str | Path, config: ServiceConfig) -> None:
        # Opening a bundle hashes and loads it: seconds, which the loop must not stand still for.
        recommender = await asyncio.to_thread(_open_bundle, bundle_path, config.device)
        self.telemetry = Telemetry(recommender.version)
        connection, follower = await self._connect(config)
        engine = await self._build_engine(recommender, connection, follower, config)
        await self._listen(engine, connection, config)
        if config.metrics_port is not None:
            self.metrics = MetricsEndpoint(
                self.telemetry, host="127.0.0.1", port=config.metrics_port
            )
            self._resources.callback(self.metrics.close)
        logger.info("bundle %s is served on %s", recommender.version, self.address)

    async def _connect(self, config: ServiceConfig) -> tuple[RedisConnection, RedisConnection]:
        url = config.redis
        if url == EMBEDDED:
            self.redis = EmbeddedRedis(config.state, max_bytes=config.redis_bytes)
            await asyncio.to_thread(self.redis.start)
            self._resources.push_async_callback(asyncio.to_thread, self.redis.stop)
            url = self.redis.url
        connections = []
        for _ in range(2):
            connection = RedisConnection(url, timeout_s=config.redis_timeout_s)
            self._resources.push_async_callback(connection.close)
            if not await connection.probe():
                raise StateError(f"redis {_without_password(url)} must answer, it does not")
            connections.append(connection)
        return connections[0], connections[1]

    async def _build_engine(
        self,
        recommender: Recommender,
        connection: RedisConnection,
        follower: RedisConnection,
        config: ServiceConfig,
    ) -> Engine:
        compute = ComputeThread(max_queue=config.max_queue)
        self._resources.callback(compute.close)
        tiers = self._build_tiers(recommender, compute, connection, config)
        items = LiveItems(
            recommender,
            compute=compute,
            tiers=tiers,
            connection=connection,
            follower=follower,
            namespace=config.namespace,
        )
        self._resources.push_async_callback(items.stop)
        try:
            await items.start()
        except UnavailableError as error:
            raise StateError("the live catalogue must load, but Redis went away") from error
        histories = LiveHistories(
            connection,
            namespace=config.namespace,
            max_events=config.history_events,
            ttl_s=config.history_ttl_s,
        )
        identifies = "identification" in recommender.parts
        return Engine(
            recommender,
            ProductIdentifier(recommender) if identifies else None,
            compute=compute,
            tiers=tiers,
            histories=histories,
            items=items,
        )

    def _build_tiers(
        self,
        recommender: Recommender,
        compute: ComputeThread,
        connection: RedisConnection,
        config: ServiceConfig,
    ) -> EmbeddingTiers:
        embedder, bundle = recommender.embedder, recommender.bundle
        dim = recommender.catalogue.dim

        def run_towers(batch: Sequence[Content]) -> Floats:
            texts = [content.text for content in batch]
            pictures = [content.picture for content in batch]
            return embedder.fuse(embedder.modalities(texts, pictures))

        async def compute_batch(batch: Sequence[Content]) -> Sequence[Floats]:
            return list(await compute.run_always(run_towers, batch))

        batcher: Batcher[Content, Floats] = Batcher(
            compute_batch,
            max_batch=config.max_batch,
            wait_s=config.batch_wait_ms / 1000,
            max_queue=config.max_queue,
            on_batch=self.telemetry.batch,
        )
        self._resources.push_async_callback(batcher.close)
        return EmbeddingTiers(
            DeviceTable(max_bytes=config.device_table_bytes, dim=dim, device=config.device),
            BundleRows(
                {item_id: row for row, item_id in enumerate(bundle.items["item_id"])},
                bundle.item_embeddings,
            ),
            SharedRows(
                connection,
                prefix=f"{config.namespace}:embedding:{recommender.version}:",
                dim=dim,
                ttl_s=config.embedding_ttl_s,
                on_bad_row=self.telemetry.bad_row,
            ),
            batcher.submit,
            on_lookup=self.telemetry.lookup,
        )

    async def _listen(
        self, engine: Engine, connection: RedisConnection, config: ServiceConfig
    ) -> None:
        token = config.token.get_secret_value() if config.token else None
        server = grpc.aio.server(
            interceptors=[Boundary(self.telemetry, token=token)],
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.so_reuseport", 0),  # a second service on the port is a mistake, say so
            ],
        )
        limits = Limits(config.max_image_bytes)
        rpc.add_RecommenderServicer_to_server(
            RecommenderServicer(engine, self.telemetry, limits), server
        )
        health = Health(connection)
        health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
        assert pb.DESCRIPTOR.services_by_name["Recommender"].full_name == SERVICE
        port = _bind(server, config)
        await server.start()
        await health.start()
        self._resources.push_async_callback(server.stop, config.drain_s)
        self._resources.push_async_callback(health.drain)
        self.address = f"{config.host}:{port}"


def serve(
    bundle_path: str | Path,
    *,
    on_ready: Callable[[str], None] | None = None,
    **settings: Any,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT; a second signal does not wait for calls in flight.

    Args:
        bundle_path: A bundle, or a folder of bundles, of which the latest is taken.
        on_ready: Called with the address once the service answers.
        **settings: Fields of ``ServiceConfig``; those that are None or absent come from the
            environment, then from the defaults.

    Raises:
        ConfigError: If the settings cannot be used; lists all problems.
        BundleError: If the bundle does not verify.
        StateError: If the state folder cannot be used or Redis does not answer.
    """
    asyncio.run(_serve(bundle_path, build_config(os.environ, **settings), on_ready))


async def _serve(
    bundle_path: str | Path, config: ServiceConfig, on_ready: Callable[[str], None] | None
) -> None:
    signalled = asyncio.Queue[None]()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.put_nowait, None)
    starting = asyncio.create_task(Service.start(bundle_path, config))
    first = asyncio.create_task(signalled.get())
    await asyncio.wait({starting, first}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    service = starting.result()
    if on_ready is not None:
        on_ready(service.address)
    await first
    stopping = asyncio.create_task(service.stop())
    second = asyncio.create_task(signalled.get())
    await asyncio.wait({stopping, second}, return_when=asyncio.FIRST_COMPLETED)


def _open_bundle(path: str | Path, device: str) -> Recommender:
    return Recommender(Bundle(path), device=device)


def _bind(server: grpc.aio.Server, config: ServiceConfig) -> int:
    address = f"{config.host}:{config.port}"
    try:
        if config.tls_certificate is None or config.tls_key is None:
            return server.add_insecure_port(address)
        credentials = grpc.ssl_server_credentials(
            [(config.tls_key.read_bytes(), config.tls_certificate.read_bytes())]
        )
        return server.add_secure_port(address, credentials)
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"address {address} must be free and the certificate readable: {error}; choose "
            "another port, or 0 for a free one"
        ) from error


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}"
