"""Recommendations that arrive together, over a real Redis and a planted bundle."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from recsys.answers import Annotation, Answer
from recsys.bundle import Bundle
from recsys.ranking.requests import Request
from recsys.recommender import Recommender
from serving.config import build_config
from serving.engine.assembly import running_engine
from serving.engine.engine import Engine
from serving.errors import OverloadedError
from serving.state.connection import RedisConnection
from serving.state.embedded_redis import EmbeddedRedis
from serving.telemetry import Telemetry
from tests.serving.waiting import eventually


class Held(Recommender):
    """A recommender whose work begins when a test lets it, and which notes its batches."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.go, self.batches = threading.Event(), list[int]()

    def recommend_each(self, requests: Sequence[Request]) -> list[Answer]:
        self.batches.append(len(requests))
        assert self.go.wait(timeout=20)
        return super().recommend_each(requests)

    def annotate(self, *args: Any, **kwargs: Any) -> Annotation:
        assert self.go.wait(timeout=20)
        return super().annotate(*args, **kwargs)


@pytest.fixture
def held(shop: Any) -> Held:
    return Held(Bundle(shop.path))


@pytest.fixture
def now(shop: Any) -> datetime:
    end: datetime = shop.end
    return end


@asynccontextmanager
async def open_engine(
    recommender: Recommender, redis: EmbeddedRedis, namespace: str, **settings: Any
) -> AsyncIterator[Engine]:
    connections = [RedisConnection(redis.url, timeout_s=5) for _ in range(2)]
    config = build_config({}, namespace=namespace, **settings)
    async with running_engine(recommender, *connections, config, Telemetry()) as engine:
        yield engine
    for connection in connections:
        await connection.close()


async def test_requests_that_arrive_during_a_batch_are_the_next_batch(
    held: Held, shop: Any, now: datetime, redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with open_engine(held, redis_server, namespace, max_batch=8) as engine:
        users = [f"user-{number % 7}" for number in range(12)]
        calls = [asyncio.create_task(engine.recommend("user-0", now=now, k=5))]
        await eventually(lambda: held.batches == [1])
        calls += [asyncio.create_task(engine.recommend(user, now=now, k=5)) for user in users]
        await asyncio.sleep(0.2)
        held.go.set()
        answers = [reply.value for reply in await asyncio.gather(*calls)]
    offline = Recommender(Bundle(shop.path))
    assert held.batches == [1, 8, 4]
    assert answers == [offline.recommend(user, 5, now=shop.end) for user in ["user-0", *users]]


async def test_what_expires_in_the_queue_is_not_computed(
    held: Held, now: datetime, redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with open_engine(held, redis_server, namespace) as engine:
        first = asyncio.create_task(engine.recommend("user-0", now=now, k=5))
        await eventually(lambda: held.batches == [1])

        async def ask(user: str, timeout_s: float | None) -> None:
            async with asyncio.timeout(timeout_s):
                await engine.recommend(user, now=now, k=5)

        calls = [
            asyncio.create_task(ask(f"user-{number}", 0.1 if number % 2 else None))
            for number in range(10)
        ]
        await asyncio.sleep(0.3)
        held.go.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await first
    assert [type(one) for one in outcomes] == [type(None), TimeoutError] * 5
    assert held.batches == [1, 5]


async def test_a_photo_in_the_tower_holds_up_no_recommendation(
    held: Held, shop: Any, now: datetime, redis_server: EmbeddedRedis, namespace: str
) -> None:
    recommend_each = Recommender.recommend_each
    held.recommend_each = lambda requests: recommend_each(held, requests)  # type: ignore[method-assign]
    async with open_engine(held, redis_server, namespace) as engine:
        photo = asyncio.create_task(
            engine.annotate(shop.pictures["red-mug"], min_probability=0.5, read_words=False)
        )
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            found = await engine.recommend("user-1", now=now, k=5)
        assert len(found.value) == 5
        assert not photo.done()
        held.go.set()
        await photo


async def test_a_full_queue_refuses(
    held: Held, now: datetime, redis_server: EmbeddedRedis, namespace: str
) -> None:
    async with open_engine(held, redis_server, namespace, max_queue=2, max_batch=1) as engine:
        calls = [asyncio.create_task(engine.recommend("user-0", now=now, k=5))]
        await eventually(lambda: held.batches == [1])
        calls += [asyncio.create_task(engine.recommend("user-1", now=now, k=5)) for _ in range(2)]
        await asyncio.sleep(0.2)
        with pytest.raises(OverloadedError, match="2 requests may wait for recommendations"):
            await engine.recommend("user-2", now=now, k=5)
        held.go.set()
        assert [len(reply.value) for reply in await asyncio.gather(*calls)] == [5, 5, 5]
