"""Build an engine from its parts, and close them in order."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from recsys.answers import Answer
from recsys.data.arrays import Floats
from recsys.identifier import ProductIdentifier
from recsys.ranking.live_counts import LiveCount
from recsys.ranking.requests import Request
from recsys.recommender import Recommender
from serving.config import ServiceConfig
from serving.engine.batcher import Batcher
from serving.engine.cached_rows import SharedRows
from serving.engine.compute import ComputeThread, Threads
from serving.engine.device_table import DeviceTable
from serving.engine.embeddings import BundleRows, Content, EmbeddingTiers
from serving.engine.engine import Asked, Engine
from serving.errors import StateError, UnavailableError
from serving.state.bundled import BundledItems
from serving.state.connection import RedisConnection
from serving.state.event_counts import Counted, EventCounts
from serving.state.event_log import EventLog
from serving.state.histories import LiveHistories
from serving.state.items import LiveItems
from serving.state.served_items import ServedItems
from serving.state.unreadable import Unreadable
from serving.telemetry import Telemetry


@asynccontextmanager
async def running_engine(
    recommender: Recommender,
    connection: RedisConnection,
    follower: RedisConnection,
    config: ServiceConfig,
    telemetry: Telemetry,
) -> AsyncIterator[Engine]:
    """Yield an engine that has loaded the live catalogue and follows its changes.

    Args:
        recommender: Recommender over the bundle.
        connection: Connection to Redis.
        follower: Second connection, whose reads block.
        config: Settings of the service.
        telemetry: Counters of lookups and batches.

    Raises:
        StateError: If Redis goes away before the live catalogue is loaded.
    """
    async with AsyncExitStack() as resources:
        threads = _build_threads(config, telemetry)
        for thread in threads:
            resources.push_async_callback(asyncio.to_thread, thread.close)
        batcher = _build_batcher(recommender, threads.towers, config, telemetry)
        recommendations = _build_recommendations(recommender, threads.catalogue, config, telemetry)
        bundle = recommender.bundle
        bundled = BundledItems(bundle.items, version=bundle.version, as_of_us=bundle.items_as_of_us)
        tiers = _build_tiers(recommender, bundled, batcher, connection, config, telemetry)
        for part in (recommendations, tiers, batcher):  # closed in the reverse order
            resources.push_async_callback(part.close)
        identifier = _build_identifier(recommender)
        unreadable = Unreadable(telemetry.unreadable)
        items = LiveItems(
            ServedItems(recommender, identifier, compute=threads.catalogue, bundled=bundled),
            tiers,
            connection,
            follower,
            namespace=config.namespace,
            unreadable=unreadable,
            picture_bytes=config.picture_budget,
        )
        resources.push_async_callback(items.stop)
        try:
            await items.start()
        except UnavailableError as error:
            raise StateError(
                "the live catalogue must load, but Redis stopped answering; start again"
            ) from error
        await threads.catalogue.run_always(recommender.prepare_search)
        await resources.enter_async_context(
            _following_counts(recommender, threads.catalogue, connection, config)
        )
        yield Engine(
            recommender,
            identifier,
            threads=threads,
            recommendations=recommendations,
            tiers=tiers,
            histories=_build_histories(connection, config, unreadable),
            log=_build_log(connection, config, telemetry),
            items=items,
        )


@asynccontextmanager
async def _following_counts(
    recommender: Recommender,
    compute: ComputeThread,
    connection: RedisConnection,
    config: ServiceConfig,
) -> AsyncIterator[None]:
    """Let the recommender follow what users take, where its bundle has events."""
    if "ranking" not in recommender.parts:
        yield
        return
    ranker, targets = recommender.ranker, recommender.bundle.target_kinds
    kinds = {one: one in targets for one in recommender.kind_names}

    async def apply(counts: Mapping[str, LiveCount]) -> None:
        await compute.run_always(ranker.count, counts)

    counts = EventCounts(
        connection,
        namespace=config.namespace,
        counted=Counted(ranker.as_of_us, ranker.window_days, kinds),
        apply=apply,
    )
    await counts.start()
    try:
        yield
    finally:
        await counts.stop()


def _build_histories(
    connection: RedisConnection, config: ServiceConfig, unreadable: Unreadable
) -> LiveHistories:
    return LiveHistories(
        connection,
        namespace=config.namespace,
        max_events=config.history_events,
        ttl_s=config.history_ttl_s,
        unreadable=unreadable,
    )


def _build_threads(config: ServiceConfig, telemetry: Telemetry) -> Threads:
    return Threads(
        *(
            ComputeThread(max_queue=config.max_queue, on_run=partial(telemetry.computed, name))
            for name in Threads._fields
        )
    )


def _build_log(
    connection: RedisConnection, config: ServiceConfig, telemetry: Telemetry
) -> EventLog:
    return EventLog(
        connection,
        namespace=config.namespace,
        max_events=config.event_log_events,
        on_lost=telemetry.lost_events,
    )


def _build_identifier(recommender: Recommender) -> ProductIdentifier | None:
    identifies = "identification" in recommender.parts
    return ProductIdentifier(recommender) if identifies else None


def _build_batcher(
    recommender: Recommender, towers: ComputeThread, config: ServiceConfig, telemetry: Telemetry
) -> Batcher[Content, Floats]:
    embedder = recommender.embedder

    def run_towers(batch: Sequence[Content]) -> Floats:
        texts = [content.text for content in batch]
        pictures = [content.picture for content in batch]
        return embedder.fuse(embedder.modalities(texts, pictures))

    async def compute_batch(batch: Sequence[Content]) -> Sequence[Floats]:
        return list(await towers.run_always(run_towers, batch))

    return Batcher(
        compute_batch,
        max_batch=config.max_batch,
        wait_s=config.batch_wait_ms / 1000,
        max_queue=config.max_queue,
        on_batch=telemetry.batch,
    )


def _build_recommendations(
    recommender: Recommender, compute: ComputeThread, config: ServiceConfig, telemetry: Telemetry
) -> Batcher[Asked, Answer]:
    def answer(batch: Sequence[Asked]) -> list[Answer]:
        return recommender.recommend_each(
            [Request(recommender.history(one.user_id, one.live), **one.wanted) for one in batch]
        )

    async def compute_batch(batch: Sequence[Asked]) -> Sequence[Answer]:
        return await compute.run_always(answer, batch)

    return Batcher(
        compute_batch,
        max_batch=config.max_batch,
        wait_s=0,  # the next batch fills while one runs, so that no request waits for company
        max_queue=config.max_queue,
        on_batch=telemetry.recommended_together,
        waiting_for="recommendations",
    )


def _build_tiers(
    recommender: Recommender,
    bundled: BundledItems,
    batcher: Batcher[Content, Floats],
    connection: RedisConnection,
    config: ServiceConfig,
    telemetry: Telemetry,
) -> EmbeddingTiers:
    dim = recommender.catalogue.dim
    return EmbeddingTiers(
        DeviceTable(
            max_bytes=config.device_table_bytes,
            dim=dim,
            device=config.device,
            stored=config.device_table_type,
        ),
        BundleRows(bundled.row_of, recommender.bundle.item_embeddings),
        SharedRows(
            connection,
            # The version is in every key, so replicas of different bundles share no rows.
            prefix=f"{config.namespace}:embedding:{recommender.version}:",
            dim=dim,
            ttl_s=config.embedding_ttl_s,
            on_bad_row=telemetry.bad_row,
            on_refused=telemetry.refused_row,
            max_queue=config.max_queue,
        ),
        batcher.submit,
        on_lookup=telemetry.lookup,
    )
