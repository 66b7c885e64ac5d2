"""The live catalogue as items: what their embeddings are made of, and how they take effect."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recsys.catalogue.embedder import item_texts
from recsys.errors import InvalidArgumentError, InvalidImageError
from recsys.identifier import ProductIdentifier
from recsys.recommender import Recommender
from recsys.schema import ItemSchema
from serving.engine.compute import ComputeThread
from serving.engine.embeddings import Content, EmbeddingTiers, Floats, content_key, picture_digest
from serving.errors import OverloadedError, UnavailableError
from serving.rpc.requests import NewItem
from serving.state.changelog import LiveCatalogue
from serving.state.changes import Change, ItemRecord, SupersededError
from serving.state.connection import RedisConnection

logger = logging.getLogger(__name__)

_CONCURRENT = 32
_RETRY_S = 0.05
_ATTEMPTS = 10  # of an upsert whose items' pictures are changed by others meanwhile


class _Embedded(NamedTuple):
    item: Floats  # (D,)
    picture: Floats | None  # (D,), of the picture alone; zeros: it has none; None: as before


class LiveItems:
    """Upserts and deletes items, and gives every change, whoever made it, to the recommender.

    Args:
        recommender: Used on the compute thread only.
        identifier: Over the recommender; learns of new pictures. None where there is none.
        compute: The recommender's thread.
        tiers: Embeddings of items.
        connection: To Redis.
        follower: A second connection, whose reads block.
        bundled_rows: Row of each item of the bundle.
        namespace: First part of the keys.
        apply_timeout_s: How long a write waits to take effect here.
    """

    def __init__(
        self,
        recommender: Recommender,
        identifier: ProductIdentifier | None,
        *,
        compute: ComputeThread,
        tiers: EmbeddingTiers,
        connection: RedisConnection,
        follower: RedisConnection,
        bundled_rows: Mapping[str, int],
        namespace: str,
        apply_timeout_s: float = 10.0,
    ) -> None:
        self._recommender = recommender
        self._identifier = identifier
        self._compute = compute
        self._tiers = tiers
        self._apply_timeout_s = apply_timeout_s
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._bundled = recommender.bundle.items
        self._bundled_rows = bundled_rows
        self._live = LiveCatalogue(
            connection, follower, namespace=namespace, apply=self._apply, revert=self._revert
        )

    @property
    def stale(self) -> bool:
        """Whether changes of other replicas may be missing."""
        return self._live.stale

    async def start(self) -> None:
        """Take over all stored changes, then follow; errors as ``LiveCatalogue.start``."""
        await self._live.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._live.stop()

    async def upsert(self, items: Sequence[NewItem]) -> None:
        """Store items; on return they are durable and served here.

        Raises:
            InvalidImageError: If a picture is none.
            InvalidArgumentError: If an item's words change while its picture is only in the bundle.
            UnavailableError: If Redis is away, or others keep changing the pictures.
        """
        for _ in range(_ATTEMPTS):
            try:
                await self._upsert_once(items)
            except SupersededError:
                continue
            return
        raise UnavailableError(
            "items sent without pictures must keep theirs while they are embedded, but others "
            f"changed one in each of {_ATTEMPTS} attempts; send the pictures along, or call again"
        )

    async def delete(self, item_ids: Sequence[str]) -> int:
        """Stop answering items and return how many were there.

        Raises:
            UnavailableError: If Redis is away.
        """
        catalogue = self._recommender.catalogue
        known = await self._compute.run(lambda: [one for one in item_ids if one in catalogue])
        changes = [Change(ItemRecord(item_id, deleted=True)) for item_id in known]
        await self._live.write(changes, timeout_s=self._apply_timeout_s)
        return len(known)

    async def _upsert_once(self, items: Sequence[NewItem]) -> None:
        stored = await self._live.records([item.fields["item_id"] for item in items])
        changes = [self._change(item, record) for item, record in zip(items, stored, strict=True)]
        # Whatever can be wrong is found before anything is stored.
        ItemSchema.validate(self._frame([change.record for change in changes]))
        await asyncio.gather(
            *(
                self._embed(change.record, item.picture)
                for change, item in zip(changes, items, strict=True)
            )
        )
        await self._live.write(changes, timeout_s=self._apply_timeout_s)

    def _change(self, item: NewItem, stored: ItemRecord | None) -> Change:
        """Return what to write for an item, given what is stored of it."""
        fields = _to_json(item.fields)
        item_id = fields.pop("item_id")
        if item.picture:
            digest = picture_digest(item.picture)
            return Change(ItemRecord(item_id, False, "stored", digest, fields), item.picture)
        if item.picture == b"":
            return Change(ItemRecord(item_id, fields=fields))
        there = item_id in self._bundled_rows and self._bundled_image(item_id) is not None
        bundled = ItemRecord(item_id, picture="bundle" if there else "none")
        before = bundled if stored is None else stored
        record = ItemRecord(item_id, False, before.picture, before.picture_digest, fields)
        if record.picture == "bundle" and not self._is_as_bundled(record):
            raise InvalidArgumentError(
                f"item {item_id!r} has new words, and its picture is known to the bundle only; "
                "send the picture along, or empty bytes to go without"
            )
        # Embedding it takes a while, in which others may replace the picture that it names.
        return Change(record, "same", seen=stored)

    async def _apply(self, records: Sequence[ItemRecord]) -> None:
        """Give changes to the recommender; one that it cannot take does not stop the others."""
        try:
            await self._apply_together(records)
        except UnavailableError:
            raise
        except Exception:
            if len(records) == 1:
                logger.exception("item %r is left out", records[0].item_id)
                return
            for record in records:
                await self._apply([record])

    async def _apply_together(self, records: Sequence[ItemRecord]) -> None:
        """Give changes to the recommender; of several to one item the last one counts."""
        latest = {record.item_id: record for record in records}
        live = [record for record in latest.values() if not record.deleted]
        deleted = [record.item_id for record in latest.values() if record.deleted]
        embedded = await asyncio.gather(*(self._embed_patiently(record) for record in live))
        there = [
            (record, one) for record, one in zip(live, embedded, strict=True) if one is not None
        ]
        await self._compute.run_always(self._take, there, deleted)

    def _take(self, live: Sequence[tuple[ItemRecord, _Embedded]], deleted: Sequence[str]) -> None:
        if live:
            frame = self._frame([record for record, _ in live])
            self._recommender.upsert(frame, np.stack([one.item for _, one in live]))
        pictures = {record.item_id: one.picture for record, one in live if one.picture is not None}
        if self._identifier is not None and pictures:
            self._identifier.set_pictures(list(pictures), np.stack(list(pictures.values())))
        if deleted:
            self._recommender.delete(deleted)

    async def _revert(self, item_ids: Sequence[str]) -> None:
        """Answer items as the bundle has them, and no longer those that it does not have."""
        bundled = [one for one in item_ids if one in self._bundled_rows]
        others = [one for one in item_ids if one not in self._bundled_rows]
        await self._compute.run_always(self._take_back, bundled, others)

    def _take_back(self, bundled: Sequence[str], others: Sequence[str]) -> None:
        rows = [self._bundled_rows[item_id] for item_id in bundled]
        if rows:
            embeddings = self._recommender.bundle.item_embeddings[rows]
            self._recommender.upsert(self._bundled[rows], np.asarray(embeddings, np.float32))
            if self._identifier is not None:
                self._identifier.reset_pictures(bundled)
        self._recommender.delete(others)

    async def _embed_patiently(self, record: ItemRecord) -> _Embedded | None:
        """Return a stored record's embeddings, None where a later record replaces it."""
        while True:
            try:
                return await self._embed_stored(record)
            except OverloadedError:
                await asyncio.sleep(_RETRY_S)

    async def _embed_stored(self, record: ItemRecord) -> _Embedded | None:
        try:
            async with self._slots:
                return await self._embed_both(record)
        except SupersededError:
            return await self._embed_superseded(record)
        except InvalidImageError:
            # It was readable when it was stored: this release or bundle reads less.
            logger.exception("item %r is served without its picture", record.item_id)
            return await self._embed_patiently(_without_picture(record))

    async def _embed_superseded(self, record: ItemRecord) -> _Embedded | None:
        """Return None where a later record tells of the picture, else embeddings without it."""
        if (await self._live.records([record.item_id]))[0] != record:
            logger.info("item %r changed again before it was embedded", record.item_id)
            return None
        picture = await self._live.picture(record.item_id)
        if picture is not None and picture_digest(picture) == record.picture_digest:
            return await self._embed_patiently(record)  # we had joined a reader of another item
        # No later record would ever bring the item back.
        logger.error("item %r is served without its picture: Redis has another", record.item_id)
        return await self._embed_patiently(_without_picture(record))

    async def _embed_both(self, record: ItemRecord) -> _Embedded:
        embedding = await self._embed(record, None)
        if self._identifier is None or record.picture == "bundle":
            return _Embedded(embedding, None)
        if record.picture == "none":
            return _Embedded(embedding, np.zeros_like(embedding))
        return _Embedded(embedding, await self._embed_content(record, None, None))

    async def _embed(self, record: ItemRecord, picture: bytes | None) -> Floats:
        """Return the embedding (D,) of a record, whose picture is at hand or stored."""
        if record.picture == "bundle" and self._is_as_bundled(record):
            embedding = self._tiers.of_bundle_item(record.item_id)
            assert embedding is not None, "the bundle has an embedding of each of its items"
            return embedding
        return await self._embed_content(record, self._text(record), picture)

    async def _embed_content(
        self, record: ItemRecord, text: str | None, picture: bytes | None
    ) -> Floats:
        digest = record.picture_digest if record.picture == "stored" else None

        async def content() -> Content:
            if digest is None:
                return Content(text, None)
            data = picture or await self._live.picture(record.item_id)
            if data is None or picture_digest(data) != digest:
                raise SupersededError
            return Content(text, data)

        return await self._tiers.get(content_key(text, digest), content)

    def _frame(self, records: Sequence[ItemRecord]) -> pl.DataFrame:
        rows = [_from_json(record) for record in records]
        return pl.DataFrame(rows, schema=self._bundled.schema)

    def _text(self, record: ItemRecord) -> str | None:
        return item_texts(self._frame([record]))[0]

    def _is_as_bundled(self, record: ItemRecord) -> bool:
        """Return whether the bundle's embedding of an item is still right."""
        row = self._bundled_rows.get(record.item_id)
        return row is not None and item_texts(self._bundled[row])[0] == self._text(record)

    def _bundled_image(self, item_id: str) -> str | None:
        image: str | None = self._bundled["image"][self._bundled_rows[item_id]]
        return image


def _without_picture(record: ItemRecord) -> ItemRecord:
    return ItemRecord(record.item_id, fields=record.fields)


def _to_json(fields: dict[str, Any]) -> dict[str, Any]:
    created_at: datetime | None = fields["created_at"]
    return fields | {"created_at": created_at.isoformat() if created_at else None}


def _from_json(record: ItemRecord) -> dict[str, Any]:
    fields = record.fields or {}
    created_at = fields.get("created_at")
    moment = datetime.fromisoformat(created_at).astimezone(UTC) if created_at else None
    return {"item_id": record.item_id, **fields, "created_at": moment}
