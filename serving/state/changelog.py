"""Items changed since the bundle was made: kept in Redis, followed by every replica."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Literal, NamedTuple

from serving.errors import UnavailableError
from serving.state.changes import (
    LOOK_UP,
    POSITION,
    WRITE,
    Change,
    Forgetting,
    Point,
    SupersededError,
    read_point,
    write_arguments,
)
from serving.state.connection import RedisConnection
from serving.state.records import ItemRecord, decode_record
from serving.state.unreadable import Unreadable, UnreadableError

logger = logging.getLogger(__name__)

READ_COUNT = 500
PICTURE_BYTES = 256 * 2**20
BLOCK_S = 0.2  # longest wait of a read for new changes
_RETRY_S = 0.2


class LookedUp(NamedTuple):
    """Stored records, and the time of the look-up.

    Args:
        time_us: Time by the clock of Redis, microseconds UTC.
        records: One entry per item, None where an item was never changed.
    """

    time_us: int
    records: list[ItemRecord | None]


class Stored(NamedTuple):
    """A record, and its text in Redis."""

    record: ItemRecord
    text: bytes


class LiveCatalogue:
    """Writes changes of the catalogue to Redis, and applies those of all replicas in one order.

    A replica applies its own changes when it reads them back from the stream, like those of the
    others, so all replicas go through the same states. A write is acknowledged once it is in Redis
    and applied here. Where Redis has lost changes, replicas load the records that it still has and
    revert the other items.

    Args:
        connection: Connection to Redis.
        follower: Second connection, whose reads block.
        namespace: First part of the keys.
        apply: Function that puts records into effect in this replica; a later call wins.
        revert: Function that gives items back the state that they have in the bundle.
        unreadable: What takes note of records that cannot be read.
        read_count: Number of records or changes in one read.
        picture_bytes: Largest size of all stored pictures together.
    """

    def __init__(
        self,
        connection: RedisConnection,
        follower: RedisConnection,
        *,
        namespace: str,
        apply: Callable[[Sequence[ItemRecord]], Awaitable[None]],
        revert: Callable[[Sequence[str]], Awaitable[None]],
        unreadable: Unreadable,
        read_count: int = READ_COUNT,
        picture_bytes: int = PICTURE_BYTES,
    ) -> None:
        self._connection = connection
        self._follower = follower
        self._apply = apply
        self._revert = revert
        self._unreadable = unreadable
        self._read_count = read_count
        self._picture_bytes = picture_bytes
        # The braces put all keys of the catalogue on one node of a cluster: the script needs it.
        prefix = f"{{{namespace}:catalogue}}"
        self._number, self._records, self._pictures, self._stream, self._epoch, self._sizes = (
            f"{prefix}:{name}"
            for name in ("number", "records", "pictures", "stream", "epoch", "picture-sizes")
        )
        self._applied = Point(0, "")
        self._changed: set[str] = set()  # items that differ from the bundle in this replica
        # Times of records of an earlier release, which has them in the stream only.
        self._dates_us: dict[str, int] = {}
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.stale = False

    async def start(self) -> None:
        """Apply all stored records, then follow the changes.

        Raises:
            UnavailableError: If Redis is away.
        """
        position = await self._load()
        self._task = asyncio.create_task(self._follow(position))

    async def stop(self) -> None:
        """Stop following."""
        # Without cancelling, which redis-py may swallow; a read ends soon by itself.
        self._stopping = True
        if self._task is not None:
            task, self._task = self._task, None
            await task
            # They lead back here, and such a ring would keep the models in memory for a while.
            del self._apply, self._revert

    async def write(self, changes: Sequence[Change | Forgetting], *, timeout_s: float) -> None:
        """Store changes; on return they are durable and in effect here.

        Raises:
            SupersededError: If a record ``seen``, or its picture, has been replaced; nothing is
                stored.
            UnavailableError: If Redis is away, or this replica does not apply the change in time;
                the same changes may be written again. Or if the pictures would have more bytes than
                they may; nothing is stored.
        """
        if not changes:
            return
        arguments = write_arguments(changes, self._applied, picture_bytes=self._picture_bytes)
        keys = (
            *(self._number, self._records, self._pictures),
            *(self._stream, self._epoch, self._sizes),
        )
        async with self._connection.translated():
            written = await self._connection.client.eval(WRITE, len(keys), *keys, *arguments)
        if written is None:
            raise SupersededError
        if written[0] == b"full":
            raise UnavailableError(
                f"the pictures that callers sent have {written[1]} bytes and may have "
                f"{self._picture_bytes} together; forget what a newer table supersedes, raise "
                "picture_bytes, or send the items without pictures"
            )
        await self._until_applied(read_point(*written), timeout_s)

    async def look_up(self, item_ids: Sequence[str]) -> LookedUp:
        """Return the stored records and the time.

        Raises:
            UnavailableError: If Redis is away.
        """
        async with self._connection.translated():
            seconds, microseconds, found = await self._connection.client.eval(
                LOOK_UP, 1, self._records, *item_ids
            )
        return LookedUp(
            int(seconds) * 1_000_000 + int(microseconds),
            [
                None if text is None else self._dated(self._decode(item_id, text))
                for item_id, text in zip(item_ids, found, strict=True)
            ],
        )

    async def scan(self, cursor: int, count: int) -> tuple[int, list[Stored]]:
        """Return some records, and the cursor of those that follow; 0 begins and ends.

        A record that was there all the time comes at least once.

        Args:
            cursor: 0, or the cursor that the call before returned.
            count: About how many records to return.

        Raises:
            UnavailableError: If Redis is away.
        """
        async with self._connection.translated():
            cursor, found = await self._connection.client.hscan(self._records, cursor, count=count)
        records = self._decode_all(found)
        return cursor, [
            Stored(self._dated(record), text)
            for record, text in zip(records, found.values(), strict=True)
        ]

    async def picture(self, item_id: str) -> bytes | None:
        """Return the stored picture of an item.

        Raises:
            UnavailableError: If Redis is away.
        """
        async with self._connection.translated():
            picture: bytes | None = await self._connection.client.hget(self._pictures, item_id)
        return picture

    async def _until_applied(self, point: Point, timeout_s: float) -> None:
        def is_applied() -> bool:
            return self._applied.epoch == point.epoch and self._applied.number >= point.number

        try:
            async with asyncio.timeout(timeout_s), self._progress:
                await self._progress.wait_for(is_applied)
        except TimeoutError as error:
            raise UnavailableError(
                "the change is stored, but this replica has not applied it yet; call again"
            ) from error

    async def _load(self) -> str:
        """Apply all records and return the stream position to follow from."""
        keys = (self._stream, self._number, self._epoch)
        async with self._follower.translated():
            # The position first: a change made during the reads is applied twice, never missed.
            position, *point = await self._follower.client.eval(POSITION, len(keys), *keys)
        stored: set[str] = set()
        cursor, is_dated = None, False
        while cursor != 0:
            async with self._follower.translated():
                cursor, found = await self._follower.client.hscan(
                    self._records, cursor or 0, count=self._read_count
                )
            records = self._decode_all(found)
            if not is_dated and any(record.written is None for record in records):
                is_dated = await self._read_dates()
            stored |= await self._take([self._dated(record) for record in records])
        await self._revert_lost(self._changed - stored)
        logger.info("loaded %d live items", len(stored))
        await self._advance(read_point(*point))
        loaded: str = position.decode()
        return loaded

    async def _take(self, records: Sequence[ItemRecord]) -> set[str]:
        """Apply records and return the ids of their items."""
        item_ids = {record.item_id for record in records}
        self._changed |= item_ids
        await self._apply(records)
        return item_ids

    async def _read_dates(self) -> Literal[True]:
        """Take note of the times of records of an earlier release that are still in the stream."""
        position: bytes | str = "0"
        while True:
            async with self._follower.translated():
                streams = await self._follower.client.xread(
                    {self._stream: position}, count=self._read_count
                )
            if not streams:
                return True
            entries = streams[0][1]
            for entry in entries:
                with suppress(UnreadableError):
                    self._record_of(entry)
            position = entries[-1][0]

    def _decode_all(self, found: Mapping[bytes, bytes]) -> list[ItemRecord]:
        return [self._decode(key.decode(errors="replace"), text) for key, text in found.items()]

    def _decode(self, item_id: str, text: bytes) -> ItemRecord:
        """Return the record of an item, or one that stands for a text that cannot be read."""
        try:
            return decode_record(text)
        except UnreadableError as error:
            self._unreadable.note("item", error)
            return ItemRecord(item_id, is_readable=False)

    def _record_of(self, entry: Any) -> ItemRecord:
        """Return the record in an entry of the stream; raise UnreadableError if there is none."""
        entry_id, fields = entry
        record = decode_record(fields[b"r"])
        if record.written is None:
            self._dates_us[record.item_id] = int(entry_id.split(b"-")[0]) * 1000
        return self._dated(record)

    def _dated(self, record: ItemRecord) -> ItemRecord:
        """Return a record with its time, as far as the time of an earlier release is known."""
        time_us = self._dates_us.get(record.item_id)
        return record if record.written or time_us is None else record.dated(time_us)

    async def _forget(self, records: Sequence[ItemRecord]) -> None:
        """Revert the items of records that a caller removed."""
        item_ids = {record.item_id for record in records}
        await self._revert(sorted(item_ids))
        self._changed -= item_ids

    async def _revert_lost(self, lost: set[str]) -> None:
        if lost:
            logger.warning(
                "Redis no longer has %d live items; reverting them to the bundle's version",
                len(lost),
            )
            await self._revert(sorted(lost))
            self._changed -= lost

    async def _follow(self, position: str | None) -> None:
        while not self._stopping:
            try:
                if position is None:
                    position = await self._recover()
                else:
                    position = await self._read_on(position)
                self.stale = position is None
            except (UnavailableError, UnreadableError):
                # An unreadable entry does not even say of which item it is; records do.
                self.stale, position = True, None
            except Exception:
                # A change that cannot be applied must not end the following of all others.
                logger.exception(
                    "a change of the catalogue could not be applied; loading all again"
                )
                self.stale, position = True, None
                await asyncio.sleep(_RETRY_S)

    async def _read_on(self, position: str) -> str:
        stored, entries = await self._read(position)
        if not self._connection.available:  # a single slow command may have failed
            await self._connection.probe()
        points = [read_point(fields[b"n"], fields.get(b"e")) for _, fields in entries]
        upcoming = stored._replace(number=stored.number + 1)
        if any(self._is_lost(point) for point in (upcoming, *points)):
            return await self._reload("Redis lost changes that were in effect here")
        # Everything stored before the read is in the entries, unless the stream was trimmed.
        first, expected = (points or [upcoming])[0].number, self._applied.number + 1
        if first > expected:
            return await self._reload(f"missed changes {expected} to {first - 1}")
        if not entries:
            return position
        for is_forgotten, some in groupby(entries, key=lambda entry: b"f" in entry[1]):
            records = [self._record_of(entry) for entry in some]
            await (self._forget(records) if is_forgotten else self._take(records))
        await self._advance(points[-1])
        newest: str = entries[-1][0].decode()
        return newest

    async def _read(self, position: str) -> tuple[Point, Sequence[Any]]:
        """Return the stored point and the entries after a position; waits a moment for one."""
        async with self._follower.translated():
            client = self._follower.client
            stored = read_point(*await client.mget(self._number, self._epoch))
            streams = await client.xread(
                {self._stream: position}, count=self._read_count, block=int(BLOCK_S * 1000)
            )
        return stored, streams[0][1] if streams else []

    def _is_lost(self, change: Point) -> bool:
        """Return whether a change comes from a history that lacks changes in effect here."""
        other = bool(self._applied.epoch) and change.epoch != self._applied.epoch
        return other or change.number <= self._applied.number

    async def _reload(self, reason: str) -> str:
        logger.warning("%s; loading all again", reason)
        self.stale = True
        return await self._load()

    async def _recover(self) -> str | None:
        """Load everything once Redis answers again, for it may have lost or gained changes."""
        # Both are asked: each remembers for its users whether Redis answers.
        if all([await one.probe() for one in (self._follower, self._connection)]):
            return await self._load()
        await asyncio.sleep(_RETRY_S)
        return None

    async def _advance(self, point: Point) -> None:
        async with self._progress:
            self._applied = point
            self._progress.notify_all()
