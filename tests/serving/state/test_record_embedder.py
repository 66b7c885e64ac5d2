"""Embeddings of stored records whose pictures change, break, or come at a bad moment."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recsys.errors import InvalidImageError
from recsys.schema import ItemSchema
from serving.engine.cached_rows import SharedRows
from serving.engine.device_table import DeviceTable
from serving.engine.embeddings import (
    BundleRows,
    Content,
    EmbeddingTiers,
    Floats,
    picture_digest,
)
from serving.errors import OverloadedError
from serving.state.bundled import BundledItems
from serving.state.changelog import LiveCatalogue
from serving.state.changes import Change, SupersededError
from serving.state.connection import RedisConnection
from serving.state.record_embedder import RecordEmbedder
from serving.state.records import ItemRecord, Written, fields_of
from serving.state.unreadable import Unreadable

DIM = 2
ROW = {
    "item_id": "mug",
    "title": "Mug",
    "description": None,
    "image": "mug.png",
    "category": ["home"],
    "price": 1.0,
    "attributes": [],
    "available": True,
    "created_at": datetime(2025, 1, 1, tzinfo=UTC),
}


class Towers:
    """Embeds a content as the lengths of text and picture, after some planted errors."""

    def __init__(self) -> None:
        self.errors: Iterator[Exception] = iter(())
        self.unreadable: set[bytes] = set()

    async def __call__(self, content: Content) -> Floats:
        for error in self.errors:
            raise error
        if content.picture in self.unreadable:
            raise InvalidImageError("not a readable image")
        return np.array([len(content.text or ""), len(content.picture or b"")], np.float32)


class Shelf:
    """A live catalogue in Redis and an embedder of its records."""

    def __init__(self, connection: RedisConnection, namespace: str) -> None:
        self.towers = Towers()
        self.live = LiveCatalogue(
            connection,
            connection,
            namespace=namespace,
            apply=self._ignore,
            revert=self._ignore,
            unreadable=Unreadable(lambda kind: None),
        )
        bundled = BundledItems(ItemSchema.validate(pl.DataFrame([ROW]), cast=True))
        tiers = EmbeddingTiers(
            DeviceTable(max_bytes=0, dim=DIM, device="cpu"),
            BundleRows(bundled.row_of, np.full((1, DIM), 7, np.float32)),
            SharedRows(
                connection,
                prefix=f"{namespace}:embedding:",
                dim=DIM,
                ttl_s=60,
                on_bad_row=lambda: None,
                on_refused=lambda: None,
            ),
            self.towers,
            on_lookup=lambda tier: None,
        )
        self.embedder = RecordEmbedder(tiers, bundled, self.live, identifies=True, retry_s=0)

    async def _ignore(self, _: Sequence[object]) -> None: ...

    async def store(self, title: str, picture: bytes) -> ItemRecord:
        fields = fields_of(ROW | {"title": title})
        digest = picture_digest(picture)
        record = ItemRecord("mug", False, "stored", digest, fields, Written(at_us=1))
        await self.live.write([Change(record, picture)], timeout_s=5)
        return record

    async def embeddings(self, record: ItemRecord) -> list[list[float] | None] | None:
        embedded = await self.embedder.embed_stored(record, record)
        if embedded is None:
            return None
        return [None if one is None else one.tolist() for one in embedded]


@asynccontextmanager
async def following(shelf: Shelf) -> AsyncIterator[Shelf]:
    await shelf.live.start()
    try:
        yield shelf
    finally:
        await shelf.live.stop()


@pytest.fixture
async def shelf(connection: RedisConnection, namespace: str) -> AsyncIterator[Shelf]:
    async with following(Shelf(connection, namespace)) as shelf:
        yield shelf


async def test_words_and_picture_are_embedded_together_and_the_picture_alone(shelf: Shelf) -> None:
    record = await shelf.store("Red mug", b"12345")

    assert await shelf.embeddings(record) == [[7, 5], [0, 5]]
    assert await shelf.embeddings(record.without_picture()) == [[7, 0], [0, 0]]


async def test_an_item_as_in_the_bundle_has_the_embedding_of_the_bundle(shelf: Shelf) -> None:
    record = ItemRecord("mug", picture="bundle", fields=fields_of(ROW | {"price": 2.0}))

    assert await shelf.embeddings(record) == [[7, 7], None]


async def test_overload_is_waited_out(shelf: Shelf) -> None:
    record = await shelf.store("Red mug", b"12345")
    shelf.towers.errors = iter([OverloadedError("slow down")] * 3)

    assert await shelf.embeddings(record) == [[7, 5], [0, 5]]


async def test_a_stored_picture_that_is_no_longer_readable_is_left_out(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    record = await shelf.store("Red mug", b"12345")
    shelf.towers.unreadable = {b"12345"}

    assert await shelf.embeddings(record) == [[7, 0], [0, 0]]
    assert "item 'mug' is served without its picture" in caplog.text


async def test_a_record_that_was_replaced_meanwhile_is_not_embedded(shelf: Shelf) -> None:
    record = await shelf.store("Red mug", b"12345")
    newer = await shelf.store("Blue mug", b"123")

    assert await shelf.embeddings(record) is None
    assert await shelf.embeddings(newer) == [[8, 3], [0, 3]]


async def test_a_superseded_lookup_of_another_item_is_repeated(shelf: Shelf) -> None:
    record = await shelf.store("Red mug", b"12345")
    shelf.towers.errors = iter([SupersededError()])

    assert await shelf.embeddings(record) == [[7, 5], [0, 5]]


async def test_a_picture_that_redis_no_longer_has_is_left_out(
    shelf: Shelf, connection: RedisConnection, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = await shelf.store("Red mug", b"12345")
    await connection.client.hdel(f"{{{namespace}:catalogue}}:pictures", "mug")

    assert await shelf.embeddings(record) == [[7, 0], [0, 0]]
    assert "Redis has another" in caplog.text


async def test_a_new_record_raises_before_it_is_stored(shelf: Shelf) -> None:
    record = ItemRecord("mug", False, "stored", picture_digest(b"12"), fields_of(ROW))
    shelf.towers.unreadable = {b"12"}

    with pytest.raises(InvalidImageError):
        await shelf.embedder.embed_new(record, b"12")
    with pytest.raises(SupersededError):  # without the bytes, and Redis has none
        await shelf.embedder.embed_new(record, None)
