"""Embeddings of live items, whose pictures may change while they are read."""

import asyncio
import logging
from typing import NamedTuple

import numpy as np

from recsys.data.arrays import Floats
from recsys.errors import InvalidImageError
from serving.engine.embeddings import Content, EmbeddingTiers, content_key, picture_digest
from serving.errors import OverloadedError
from serving.state.bundled import BundledItems
from serving.state.changelog import LiveCatalogue
from serving.state.changes import SupersededError
from serving.state.records import ItemRecord

logger = logging.getLogger(__name__)


class Embedded(NamedTuple):
    """Embeddings of an item.

    Args:
        item: Embedding of words and picture together (D,).
        picture: Embedding of the picture alone (D,), by which photos are identified; zeros for an
            item without a picture, None where the bundle's is still right.
    """

    item: Floats
    picture: Floats | None


class RecordEmbedder:
    """Embeds records of items, from the cheapest tier that has the embedding.

    Args:
        tiers: Tiers of embeddings.
        bundled: Items of the bundle.
        stored: Records and pictures in Redis.
        identifies: Whether pictures are embedded alone, too.
        max_concurrent: Number of records that are embedded at the same time.
        retry_s: Pause before the next attempt where the towers were overloaded.
    """

    def __init__(
        self,
        tiers: EmbeddingTiers,
        bundled: BundledItems,
        stored: LiveCatalogue,
        *,
        identifies: bool,
        max_concurrent: int = 32,
        retry_s: float = 0.05,
    ) -> None:
        self._tiers = tiers
        self._bundled = bundled
        self._stored = stored
        self._identifies = identifies
        self._slots = asyncio.Semaphore(max_concurrent)
        self._retry_s = retry_s

    async def embed_new(self, record: ItemRecord, picture: bytes | None) -> None:
        """Embed a record before it is written, so that whatever can be wrong is found first.

        Args:
            record: The record to be written.
            picture: Bytes of its picture, where the call that writes it brings them.

        Raises:
            InvalidImageError: If the bytes are not a readable image.
            OverloadedError: If too many wait for the towers.
            SupersededError: If another picture has replaced the one that the record names.
        """
        await self._item(record, picture)

    async def embed_stored(self, record: ItemRecord, served: ItemRecord) -> Embedded | None:
        """Return the embeddings of a stored record, None where a later record replaces it.

        A picture that cannot be used is left out and logged, and overload is waited out: the item
        must come into effect.

        Args:
            record: The record in Redis.
            served: The item that is served of it, from ``BundledItems.judge``.
        """
        attempted = served
        superseded = False
        while True:
            try:
                if superseded and await self._is_replaced(record):
                    logger.info("item %r changed again before it was embedded", record.item_id)
                    return None
                if superseded and not await self._has_picture(served):
                    # No later record would ever bring the item back.
                    logger.error(
                        "item %r is served without its picture: Redis has another", record.item_id
                    )
                    attempted = served.without_picture()
                superseded = False
                async with self._slots:
                    return await self._both(attempted)
            except OverloadedError:
                await asyncio.sleep(self._retry_s)
            except SupersededError:
                # Or the read was shared with another item of the same content that was superseded.
                superseded = True
            except InvalidImageError:
                # It was readable when it was stored: this release or bundle reads less.
                logger.exception("item %r is served without its picture", record.item_id)
                attempted = served.without_picture()

    async def _is_replaced(self, record: ItemRecord) -> bool:
        return (await self._stored.look_up([record.item_id])).records[0] != record

    async def _has_picture(self, record: ItemRecord) -> bool:
        picture = await self._stored.picture(record.item_id)
        return picture is not None and picture_digest(picture) == record.picture_digest

    async def _both(self, record: ItemRecord) -> Embedded:
        item = await self._item(record, None)
        if not self._identifies or record.picture == "bundle":
            return Embedded(item, None)
        if record.picture == "none":
            return Embedded(item, np.zeros_like(item))
        return Embedded(item, await self._content(record, text=None, picture=None))

    async def _item(self, record: ItemRecord, picture: bytes | None) -> Floats:
        if record.picture == "bundle":
            embedding = self._tiers.of_bundle_item(record.item_id)
            if embedding is None or not self._bundled.has_words(record):
                logger.warning(
                    "item %r has newer words than the bundle, which has no picture to embed with "
                    "them; its vector is that of %s until its picture is sent",
                    record.item_id,
                    "the words alone" if embedding is None else "the table's words and picture",
                )
            if embedding is not None:
                return embedding
        return await self._content(record, text=self._bundled.text(record), picture=picture)

    async def _content(
        self, record: ItemRecord, *, text: str | None, picture: bytes | None
    ) -> Floats:
        """Return the embedding (D,) of a text with the record's stored picture."""
        digest = record.picture_digest if record.picture == "stored" else None

        async def fetch() -> Content:
            if digest is None:
                return Content(text, None)
            data = picture or await self._stored.picture(record.item_id)
            if data is None or picture_digest(data) != digest:
                raise SupersededError
            return Content(text, data)

        found = await self._tiers.get(content_key(text, digest), fetch)
        embedding: Floats = found.cpu().numpy()
        return embedding
