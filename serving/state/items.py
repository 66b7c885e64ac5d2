"""The live catalogue: items that callers change, and every change put into effect here."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from recsys.errors import InvalidArgumentError
from recsys.schema import ItemSchema
from serving.engine.embeddings import EmbeddingTiers, picture_digest
from serving.errors import UnavailableError
from serving.state.changelog import LiveCatalogue
from serving.state.changes import Change, SupersededError
from serving.state.connection import RedisConnection
from serving.state.record_embedder import RecordEmbedder
from serving.state.records import ItemRecord, fields_of
from serving.state.served_items import ServedItems

logger = logging.getLogger(__name__)


class NewItem(NamedTuple):
    """An item to store.

    Args:
        fields: Row of ``ItemSchema``.
        picture: Bytes of the picture; empty removes the picture, None keeps the one there is.
    """

    fields: dict[str, Any]
    picture: bytes | None


class LiveItems:
    """Upserts and deletes items, and puts every change, whoever made it, into effect here.

    Args:
        served: Items that this replica answers with.
        tiers: Tiers of embeddings.
        connection: Connection to Redis.
        follower: Second connection, whose reads block.
        namespace: First part of the keys.
        attempts: Number of times an upsert is tried while others change its pictures.
        apply_timeout_s: Longest wait of a write until it is in effect here.
    """

    def __init__(
        self,
        served: ServedItems,
        tiers: EmbeddingTiers,
        connection: RedisConnection,
        follower: RedisConnection,
        *,
        namespace: str,
        attempts: int = 10,
        apply_timeout_s: float = 10.0,
    ) -> None:
        self._served = served
        self._bundled = served.bundled
        self._attempts = attempts
        self._apply_timeout_s = apply_timeout_s
        self._live = LiveCatalogue(
            connection, follower, namespace=namespace, apply=self._apply, revert=served.revert
        )
        self._embedder = RecordEmbedder(
            tiers, served.bundled, self._live, identifies=served.identifies
        )

    @property
    def stale(self) -> bool:
        """Whether changes of other replicas may be missing."""
        return self._live.stale

    async def start(self) -> None:
        """Apply all stored changes, then follow new ones; errors as ``LiveCatalogue.start``."""
        await self._live.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._live.stop()

    async def upsert(self, items: Sequence[NewItem]) -> None:
        """Store items; on return they are durable and served here.

        Raises:
            InvalidImageError: If a picture is not a readable image.
            InvalidArgumentError: If an item's words change while its picture is only in the bundle.
            UnavailableError: If Redis is away, or others keep changing the pictures.
        """
        for _ in range(self._attempts):
            try:
                await self._upsert_once(items)
            except SupersededError:
                continue
            return
        raise UnavailableError(
            "items sent without pictures must keep theirs while they are embedded, but others "
            f"changed one in each of {self._attempts} attempts; send the pictures along, or call "
            "again"
        )

    async def delete(self, item_ids: Sequence[str]) -> int:
        """Leave items out of all answers and return how many of them were in the catalogue.

        Raises:
            UnavailableError: If Redis is away.
        """
        known = await self._served.known(item_ids)
        changes = [Change(ItemRecord(item_id, deleted=True)) for item_id in known]
        await self._live.write(changes, timeout_s=self._apply_timeout_s)
        return len(known)

    async def _upsert_once(self, items: Sequence[NewItem]) -> None:
        stored = await self._live.records([item.fields["item_id"] for item in items])
        changes = [self._change(item, record) for item, record in zip(items, stored, strict=True)]
        # Whatever can be wrong is found before anything is stored.
        ItemSchema.validate(self._bundled.table([change.record for change in changes]))
        await asyncio.gather(
            *(
                self._embedder.embed_new(change.record, item.picture)
                for change, item in zip(changes, items, strict=True)
            )
        )
        await self._live.write(changes, timeout_s=self._apply_timeout_s)

    def _change(self, item: NewItem, stored: ItemRecord | None) -> Change:
        """Return the change that stores an item.

        Args:
            item: The item as the call has it.
            stored: The item's record in Redis, None where it was never changed.
        """
        item_id, fields = item.fields["item_id"], fields_of(item.fields)
        if item.picture:
            digest = picture_digest(item.picture)
            return Change(ItemRecord(item_id, False, "stored", digest, fields), item.picture)
        if item.picture == b"":
            return Change(ItemRecord(item_id, fields=fields))
        bundled: Literal["bundle", "none"] = (
            "bundle" if self._bundled.has_picture(item_id) else "none"
        )
        before = ItemRecord(item_id, picture=bundled) if stored is None else stored
        record = ItemRecord(item_id, False, before.picture, before.picture_digest, fields)
        if record.picture == "bundle" and not self._bundled.has_words(record):
            raise InvalidArgumentError(
                f"item {item_id!r} has new words, and its picture is known to the bundle only; "
                "send the picture along, or empty bytes to go without"
            )
        # Embedding it takes a while, in which others may replace the picture that it names.
        return Change(record, "same", seen=stored)

    async def _apply(self, records: Sequence[ItemRecord]) -> None:
        """Put changes into effect; one that cannot be does not stop the others."""
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
        """Put changes into effect at once; of several to one item the last one counts."""
        latest = {record.item_id: record for record in records}
        live = [record for record in latest.values() if not record.deleted]
        deleted = [record.item_id for record in latest.values() if record.deleted]
        embedded = await asyncio.gather(*(self._embedder.embed_stored(record) for record in live))
        pairs = zip(live, embedded, strict=True)
        current = [(record, one) for record, one in pairs if one is not None]
        await self._served.change(current, deleted)
