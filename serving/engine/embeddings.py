"""Embeddings of queries and live items, from the cheapest tier that has them."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.data.arrays import Floats
from serving.engine.cached_rows import SharedRows
from serving.engine.device_table import DeviceTable, hash_keys

Tier = Literal["device", "bundle", "redis", "towers", "joined"]


class Content(NamedTuple):
    """Text and picture of an item or a query, as the towers read them."""

    text: str | None
    picture: bytes | None


def content_key(text: str | None, picture_digest: str | None) -> str:
    """Return the key of the embedding of a text and a picture, within one bundle version."""
    digest = hashlib.blake2b(digest_size=20)
    # The length before each part keeps different pairs apart: ("ab", "c") and ("a", "bc").
    for part in (text, picture_digest):
        encoded = b"" if part is None else part.encode()
        digest.update(f"{'-' if part is None else len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def picture_digest(picture: bytes) -> str:
    """Return a digest of a picture's bytes."""
    return hashlib.blake2b(picture, digest_size=20).hexdigest()


class BundleRows:
    """The item embeddings of the bundle on disk, memory-mapped.

    Args:
        rows: Row of each item in the bundle.
        embeddings: Item embeddings (N, D), read row by row.
    """

    def __init__(self, rows: Mapping[str, int], embeddings: Floats) -> None:
        self._rows = rows
        self._embeddings = embeddings

    def get(self, item_id: str) -> Floats | None:
        """Return the embedding (D,) of an item of the bundle, or None."""
        row = self._rows.get(item_id)
        return None if row is None else np.array(self._embeddings[row], dtype=np.float32)


class EmbeddingTiers:
    """Looks an embedding up in the device table, then in Redis, and else runs the towers.

    An embedding from Redis or the towers is put into the tiers before them. Callers that miss the
    same key at the same time share one lookup. Items that are as in the bundle have their
    embeddings there, and ``of_bundle_item`` reads them.

    Args:
        table: Table on the device.
        bundle: Embeddings of the bundle's items.
        shared: Embeddings in Redis.
        towers: Function that computes an embedding.
        on_lookup: Function that gets the tier that answered, or "joined" for a shared lookup.
    """

    def __init__(
        self,
        table: DeviceTable,
        bundle: BundleRows,
        shared: SharedRows,
        towers: Callable[[Content], Awaitable[Floats]],
        *,
        on_lookup: Callable[[Tier], None],
    ) -> None:
        self._table = table
        self._bundle = bundle
        self._shared = shared
        self._towers = towers
        self._on_lookup = on_lookup
        self._flights: dict[str, asyncio.Task[Tensor]] = {}

    def of_bundle_item(self, item_id: str) -> Floats | None:
        """Return the embedding (D,) that the bundle has for an item, or None."""
        embedding = self._bundle.get(item_id)
        if embedding is not None:
            self._on_lookup("bundle")
        return embedding

    async def get(self, key: str, content: Callable[[], Awaitable[Content]]) -> Tensor:
        """Return the embedding (D,) under a key, on the device.

        Args:
            key: Key from ``content_key``.
            content: Function that fetches text and picture; called only if the towers run.

        Raises:
            InvalidImageError: If the towers run and cannot read the picture.
            OverloadedError: If too many queries wait for the towers.
        """
        found = self._table.get(hash_keys([key]))
        if found.there[0]:
            self._on_lookup("device")
            return found.rows[0]
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fetch(key, content))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        else:
            self._on_lookup("joined")
        # A caller that gives up must not cancel the lookup of the others.
        return (await asyncio.shield(flight)).clone()

    async def close(self) -> None:
        """Wait for the lookups under way; no lookup may start after this."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._shared.close()

    async def _fetch(self, key: str, content: Callable[[], Awaitable[Content]]) -> Tensor:
        embedding = await self._shared.get(key)
        if embedding is not None:
            self._on_lookup("redis")
        else:
            embedding = await self._towers(await content())
            self._on_lookup("towers")
            await self._shared.put(key, embedding)
        row = torch.from_numpy(embedding).to(self._table.device)
        self._table.put(hash_keys([key]), row[None])
        return row

    def _land(self, key: str, flight: asyncio.Task[Tensor]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # asyncio warns of exceptions that nobody reads
