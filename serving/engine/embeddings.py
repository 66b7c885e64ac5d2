"""Embeddings through the tiers: device table, bundle, Redis, towers; cheapest first."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.engine.cached_rows import SharedRows
from serving.engine.device_table import DeviceTable

Floats = NDArray[np.float32]

Tier = Literal["device", "bundle", "redis", "towers", "joined"]


class Content(NamedTuple):
    """What the towers read of an item or a query."""

    text: str | None
    picture: bytes | None


def content_key(text: str | None, picture_digest: str | None) -> str:
    """Return the key of an embedding by what it is made from, under one bundle version."""
    digest = hashlib.blake2b(digest_size=20)
    # The length separates the two parts: no other pair concatenates to the same bytes.
    for part in (text, picture_digest):
        encoded = b"" if part is None else part.encode()
        digest.update(f"{'-' if part is None else len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def picture_digest(picture: bytes) -> str:
    """Return the name of a picture by its content."""
    return hashlib.blake2b(picture, digest_size=20).hexdigest()


class BundleRows:
    """The item embeddings of the bundle on disk, memory-mapped.

    Args:
        rows: Row of each item of the bundle.
        embeddings: Item embeddings (N, D); read by row, never copied as a whole.
    """

    def __init__(self, rows: Mapping[str, int], embeddings: Floats) -> None:
        self._rows = rows
        self._embeddings = embeddings

    def get(self, item_id: str) -> Floats | None:
        """Return the embedding (D,) of an item of the bundle, or None."""
        row = self._rows.get(item_id)
        return None if row is None else np.array(self._embeddings[row], dtype=np.float32)


class EmbeddingTiers:
    """Answers with an embedding from the cheapest tier that has it.

    What a dearer tier gives is put into the cheaper ones. Misses of one key are single-flight:
    however many ask, the towers run once.

    Args:
        table: First tier.
        bundle: Second tier; knows items only.
        shared: Third tier.
        towers: Last tier, which has everything.
        on_lookup: Called with the tier that answered; "joined" for one that another caller asked.
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
        self._flights: dict[str, asyncio.Task[Floats]] = {}

    def of_bundle_item(self, item_id: str) -> Floats | None:
        """Return the embedding (D,) that the bundle has for an item, or None."""
        embedding = self._bundle.get(item_id)
        if embedding is not None:
            self._on_lookup("bundle")
        return embedding

    async def get(self, key: str, content: Callable[[], Awaitable[Content]]) -> Floats:
        """Return the embedding (D,) under a key.

        Args:
            key: From ``content_key``.
            content: Fetches what the towers would read; called only if they have to run.

        Raises:
            InvalidImageError: If the towers have to read the picture and cannot.
            OverloadedError: If too many wait for the towers.
        """
        found = self._table.get(key)
        if found is not None:
            self._on_lookup("device")
            return found
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fetch(key, content))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        else:
            self._on_lookup("joined")
        # One caller giving up must not cancel what the others wait for.
        return np.array(await asyncio.shield(flight))

    async def close(self) -> None:
        """Wait for what is under way; nothing new may be asked for."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _fetch(self, key: str, content: Callable[[], Awaitable[Content]]) -> Floats:
        embedding = await self._shared.get(key)
        if embedding is not None:
            self._on_lookup("redis")
        else:
            embedding = await self._towers(await content())
            self._on_lookup("towers")
            await self._shared.put(key, embedding)
        self._table.put(key, embedding)
        return embedding

    def _land(self, key: str, flight: asyncio.Task[Floats]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # read, or asyncio complains where every caller has given up
