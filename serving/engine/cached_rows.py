"""Embeddings as bytes, and their cache in Redis, which replicas share."""

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Floats
from serving.engine.batcher import Batcher
from serving.errors import OverloadedError, ServingError, UnavailableError
from serving.state.connection import RedisConnection

ROWS_AT_ONCE = 512  # rows of a round trip
MAGIC = b"VEMB"
FORMAT = 1
# magic, format, dtype, unused, dim, CRC-32 of the header before it and the vector after it
_HEAD = struct.Struct("<4sBBHI")
_CRC = struct.Struct("<I")
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f2")}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class BadRowError(ServingError, ValueError):
    """A vector that cannot be stored as a row, or bytes that are not a stored row."""


def encode_row(vector: NDArray[np.floating]) -> bytes:
    """Return an embedding (D,) of float32 or float16 as bytes.

    Raises:
        BadRowError: If it is not a finite vector of one of these types.
    """
    dtype = vector.dtype.newbyteorder("<")
    if vector.ndim != 1 or dtype not in _CODES:
        raise BadRowError(
            f"vector must be float32 or float16 of shape (D,), got {vector.dtype} {vector.shape}"
        )
    if not np.isfinite(vector).all():
        raise BadRowError("vector must be finite, got NaN or infinity")
    head = _HEAD.pack(MAGIC, FORMAT, _CODES[dtype], 0, len(vector))
    body = vector.astype(dtype, copy=False).tobytes()
    return head + _CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


def decode_row(row: bytes, *, dim: int) -> Floats:
    """Return the embedding (D,) of a row.

    Args:
        row: Bytes from ``encode_row``.
        dim: Expected embedding size D.

    Raises:
        BadRowError: If a bit differs from what was written, or the row is of another kind or size.
    """
    start = _HEAD.size + _CRC.size
    if len(row) < start:
        raise BadRowError(f"row must have at least {start} bytes, got {len(row)}")
    magic, form, code, _, length = _HEAD.unpack_from(row)
    if magic != MAGIC or form != FORMAT or code not in _DTYPES:
        raise BadRowError(
            f"row must begin with {MAGIC!r}, format {FORMAT} and a dtype of {sorted(_DTYPES)}, "
            f"got {magic!r}, {form}, {code}"
        )
    (crc,) = _CRC.unpack_from(row, _HEAD.size)
    if crc != zlib.crc32(row[start:], zlib.crc32(row[: _HEAD.size])):
        raise BadRowError("row must match its checksum, it does not")
    dtype = _DTYPES[code]
    if length != dim or len(row) != start + dim * dtype.itemsize:
        raise BadRowError(f"row must hold {dim} values, got {length} in {len(row)} bytes")
    vector: Floats = np.frombuffer(row, dtype=dtype, offset=start).astype(np.float32)
    return vector


class SharedRows:
    """Embeddings in Redis, for the replicas of one bundle version.

    Reads that arrive while others are under way are the next round trip together, and so are
    writes. A damaged row is a miss and is counted. A Redis that is away, overloaded or refuses
    writes is a miss too, and is counted: a missing embedding can be computed.

    Args:
        connection: Connection to Redis.
        prefix: First part of every key, with the namespace and the bundle version.
        dim: Embedding size D.
        ttl_s: Seconds after its last use when a row expires.
        on_bad_row: Function called for each damaged row.
        on_refused: Function called for each read or write that Redis refuses.
        max_queue: Number of waiting reads, and of writes, beyond which the next one is a miss.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        prefix: str,
        dim: int,
        ttl_s: int,
        on_bad_row: Callable[[], None],
        on_refused: Callable[[], None],
        max_queue: int = 256,
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._dim = dim
        self._ttl_s = ttl_s
        self._on_bad_row = on_bad_row
        self._on_refused = on_refused
        self._reads = Batcher(self._read, waiting_for="reads of embeddings", **_together(max_queue))
        self._writes = Batcher(
            self._write, waiting_for="writes of embeddings", **_together(max_queue)
        )

    async def get(self, key: str) -> Floats | None:
        """Return the embedding (D,) under a key and renew its time to live; None on a miss."""
        try:
            row = await self._reads.submit(key)
        except (UnavailableError, OverloadedError):
            self._on_refused()
            return None
        if row is None:
            return None
        try:
            return decode_row(row, dim=self._dim)
        except BadRowError:
            self._on_bad_row()
            return None

    async def put(self, key: str, embedding: Floats) -> None:
        """Store an embedding (D,), if Redis takes it."""
        try:
            await self._writes.submit((key, encode_row(embedding)))
        except (UnavailableError, OverloadedError):
            self._on_refused()

    async def close(self) -> None:
        """Wait for the reads and writes under way; none may start after this."""
        await self._reads.close()
        await self._writes.close()

    async def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        async with self._connection.translated():
            pipeline = self._connection.client.pipeline(transaction=False)
            for key in keys:
                pipeline.getex(self._prefix + key, ex=self._ttl_s)
            rows: list[bytes | None] = await pipeline.execute()
        return rows

    async def _write(self, rows: Sequence[tuple[str, bytes]]) -> list[None]:
        async with self._connection.translated():
            pipeline = self._connection.client.pipeline(transaction=False)
            for key, row in rows:
                pipeline.set(self._prefix + key, row, ex=self._ttl_s)
            await pipeline.execute()
        return [None] * len(rows)


def _together(max_queue: int) -> dict[str, Any]:
    """Return how requests to Redis are batched: at once, and without waiting for others."""
    return {
        "max_batch": ROWS_AT_ONCE,
        "wait_s": 0,
        "max_queue": max_queue,
        "on_batch": lambda size: None,
    }
