import asyncio
from collections import Counter

import numpy as np
import pytest
from torch import Tensor

from recsys.data.arrays import Floats
from recsys.errors import InvalidImageError
from serving.engine.cached_rows import SharedRows
from serving.engine.device_table import DeviceTable
from serving.engine.embeddings import (
    BundleRows,
    Content,
    EmbeddingTiers,
    content_key,
    picture_digest,
)
from serving.state.connection import RedisConnection

DIM = 4


class Towers:
    """Embeds a text as its length, slowly, and counts."""

    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None

    async def __call__(self, content: Content) -> Floats:
        self.runs += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        return np.full(DIM, len(content.text or ""), dtype=np.float32)


class Replica:
    """The tiers of one replica, with their parts in reach."""

    def __init__(self, connection: RedisConnection, namespace: str, table_rows: int = 10) -> None:
        self.towers = Towers()
        self.answered_by: Counter[str] = Counter()
        embeddings = np.arange(2 * DIM, dtype=np.float32).reshape(2, DIM)
        self.tiers = EmbeddingTiers(
            DeviceTable(max_bytes=table_rows * DIM * 4, dim=DIM, device="cpu"),
            BundleRows({"mug": 0, "lamp": 1}, embeddings),
            SharedRows(
                connection,
                prefix=namespace,
                dim=DIM,
                ttl_s=60,
                on_bad_row=lambda: None,
                on_refused=lambda: None,
            ),
            self.towers,
            on_lookup=lambda tier: self.answered_by.update([tier]),
        )

    async def get(self, text: str) -> Tensor:
        async def content() -> Content:
            return Content(text, None)

        return await self.tiers.get(content_key(text, None), content)


async def test_an_embedding_comes_from_the_cheapest_tier_that_has_it(
    connection: RedisConnection, namespace: str
) -> None:
    first, second = Replica(connection, namespace), Replica(connection, namespace)

    embeddings = [await replica.get("red mug") for replica in (first, first, second, second)]

    assert [embedding.tolist() for embedding in embeddings] == [[7.0] * DIM] * 4
    assert first.answered_by == {"towers": 1, "device": 1}
    assert second.answered_by == {"redis": 1, "device": 1}


async def test_misses_of_one_key_run_the_towers_once(
    connection: RedisConnection, namespace: str
) -> None:
    replica = Replica(connection, namespace)

    embeddings = await asyncio.gather(*(replica.get("red mug") for _ in range(20)))

    assert replica.towers.runs == 1
    assert replica.answered_by == {"towers": 1, "joined": 19}
    assert all(embedding.tolist() == [7.0] * DIM for embedding in embeddings)


async def test_different_keys_do_not_wait_for_each_other(
    connection: RedisConnection, namespace: str
) -> None:
    replica = Replica(connection, namespace)

    await asyncio.gather(*(replica.get("x" * length) for length in range(20)))

    assert replica.towers.runs == 20


async def test_the_first_caller_giving_up_does_not_fail_the_others(
    connection: RedisConnection, namespace: str
) -> None:
    replica = Replica(connection, namespace)
    first = asyncio.create_task(replica.get("red mug"))
    await asyncio.sleep(0)
    second = asyncio.create_task(replica.get("red mug"))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).tolist() == [7.0] * DIM
    assert replica.towers.runs == 1


async def test_an_error_reaches_everybody_and_is_not_kept(
    connection: RedisConnection, namespace: str
) -> None:
    replica = Replica(connection, namespace)
    replica.towers.error = InvalidImageError("no picture")
    outcomes = await asyncio.gather(
        *(replica.get("red mug") for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [InvalidImageError] * 3

    replica.towers.error = None
    assert (await replica.get("red mug")).tolist() == [7.0] * DIM


async def test_what_the_device_forgets_redis_still_has(
    connection: RedisConnection, namespace: str
) -> None:
    replica = Replica(connection, namespace, table_rows=1)

    for text in ("a", "bb", "bb"):
        await replica.get(text)

    assert replica.answered_by == {"towers": 2, "redis": 1}


async def test_a_caller_cannot_change_what_the_next_one_gets(
    connection: RedisConnection, namespace: str
) -> None:
    replica = Replica(connection, namespace)
    (await replica.get("red mug"))[:] = 0

    assert (await replica.get("red mug")).tolist() == [7.0] * DIM


async def test_the_bundle_knows_its_own_items(connection: RedisConnection, namespace: str) -> None:
    replica = Replica(connection, namespace)

    lamp = replica.tiers.of_bundle_item("lamp")

    assert lamp is not None
    assert lamp.tolist() == [4.0, 5.0, 6.0, 7.0]
    assert replica.tiers.of_bundle_item("chair") is None
    assert replica.answered_by == {"bundle": 1}


@pytest.mark.parametrize(
    "other",
    [("a", None), (None, "b"), ("ab", None), ("", "b"), ("a", ""), ("b", "a"), ("a1:b", None)],
)
def test_different_contents_have_different_keys(other: tuple[str | None, str | None]) -> None:
    assert content_key(*other) != content_key("a", "b")


def test_a_picture_is_named_by_its_bytes() -> None:
    assert picture_digest(b"one") == picture_digest(b"one")
    assert picture_digest(b"one") != picture_digest(b"two")
