"""Items changed since the bundle was made: kept in Redis, followed by every replica."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from serving.connection import RedisConnection
from serving.errors import UnavailableError

logger = logging.getLogger(__name__)

_STREAM_LENGTH = 10_000  # a replica that falls further behind loads everything again
_READ_COUNT = 500
BLOCK_S = 0.2  # how long a read waits for news
_RETRY_S = 0.2

# Number, record and announcement change together or not at all. The number orders the changes of
# all replicas, and a gap in it shows a follower that it missed some. A change that was made from a
# record whose picture is another by now is refused, with all others: it would name a picture that
# is not there. Only pictures are compared, because a change replaces everything else.
_WRITE = """
local function picture_of(record)
  if not record then return '' end
  local stored = cjson.decode(record)
  local digest = stored.picture_digest
  if not digest or digest == cjson.null then digest = '' end
  return (stored.picture or 'none') .. ':' .. digest
end
for i = 5, #ARGV, 4 do
  local seen = ARGV[i + 3]
  if seen ~= ARGV[4] and seen ~= picture_of(redis.call('HGET', KEYS[2], ARGV[i])) then
    return 0
  end
end
local number
for i = 5, #ARGV, 4 do
  local item_id, record, picture = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  number = redis.call('INCR', KEYS[1])
  redis.call('HSET', KEYS[2], item_id, record)
  if picture == ARGV[2] then
    redis.call('HDEL', KEYS[3], item_id)
  elseif picture ~= ARGV[3] then
    redis.call('HSET', KEYS[3], item_id, picture)
  end
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[1], '*', 'n', number, 'r', record)
end
return number
"""
_NO_PICTURE, _SAME_PICTURE, _ANY_RECORD = b"\x00none", b"\x00same", b"\x00any"


class SupersededError(Exception):
    """The picture of a record was replaced meanwhile; a later record tells of it."""


@dataclass(frozen=True)
class ItemRecord:
    """An item as it is stored; ``deleted`` ones keep their id only.

    Args:
        item_id: The caller's id.
        deleted: Whether it is no longer answered.
        picture: Where its picture is: "stored" beside the record, "bundle" (the one it was
            trained with), or "none".
        picture_digest: Names the stored picture.
        fields: The other columns of ``ItemSchema``, as JSON knows them.
    """

    item_id: str
    deleted: bool = False
    picture: Literal["stored", "bundle", "none"] = "none"
    picture_digest: str | None = None
    fields: dict[str, Any] | None = None


class Change(NamedTuple):
    """A record to write.

    Args:
        record: What to store.
        picture: Bytes to store, None to drop, "same" to leave as it is.
        seen: The stored record that this one was made from, None if there was none; "any" where
            it does not matter.
    """

    record: ItemRecord
    picture: bytes | Literal["same"] | None = None
    seen: ItemRecord | Literal["any"] | None = "any"


class LiveCatalogue:
    """Writes changes of the catalogue to Redis and applies everybody's, in one order.

    A replica applies its own changes when it reads them back from the stream, like any other's:
    so all replicas go through the same states. A write is acknowledged once it is both in Redis
    and applied here.

    Args:
        connection: To Redis.
        follower: A second connection, whose reads block.
        namespace: First part of the keys.
        apply: Makes records take effect in this replica; a later call wins.
    """

    def __init__(
        self,
        connection: RedisConnection,
        follower: RedisConnection,
        *,
        namespace: str,
        apply: Callable[[Sequence[ItemRecord]], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._follower = follower
        self._apply = apply
        # The braces put all keys of the catalogue on one node of a cluster: the script needs it.
        prefix = f"{{{namespace}:catalogue}}"
        self._number, self._records, self._pictures, self._stream = (
            f"{prefix}:{name}" for name in ("number", "records", "pictures", "stream")
        )
        self._applied = 0
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.stale = False

    async def start(self) -> None:
        """Apply everything stored, then follow.

        Raises:
            UnavailableError: If Redis is away.
        """
        position = await self._load()
        self._task = asyncio.create_task(self._follow(position))

    async def stop(self) -> None:
        """Stop following."""
        # Not by cancelling: redis-py may swallow that, and a read ends soon by itself.
        self._stopping = True
        if self._task is not None:
            await self._task

    async def write(self, changes: Sequence[Change], *, timeout_s: float) -> None:
        """Store changes; on return they are durable and in effect here.

        Raises:
            SupersededError: If a picture is no longer that of the record ``seen``; nothing is
                stored.
            UnavailableError: If Redis is away, or this replica does not see the change in time;
                writing again is right.
        """
        if not changes:
            return
        arguments: list[Any] = [_STREAM_LENGTH, _NO_PICTURE, _SAME_PICTURE, _ANY_RECORD]
        for change in changes:
            arguments += _arguments(change)
        keys = (self._number, self._records, self._pictures, self._stream)
        async with self._connection.translated():
            number = int(await self._connection.client.eval(_WRITE, 4, *keys, *arguments))
        if number == 0:
            raise SupersededError
        try:
            async with asyncio.timeout(timeout_s), self._progress:
                await self._progress.wait_for(lambda: self._applied >= number)
        except TimeoutError as error:
            raise UnavailableError(
                "the change is stored, but this replica has not applied it yet; call again"
            ) from error

    async def records(self, item_ids: Sequence[str]) -> list[ItemRecord | None]:
        """Return the stored records, None where an item was never changed.

        Raises:
            UnavailableError: If Redis is away.
        """
        async with self._connection.translated():
            found = await self._connection.client.hmget(self._records, list(item_ids))
        return [None if record is None else _decode(record) for record in found]

    async def picture(self, item_id: str) -> bytes | None:
        """Return the stored picture of an item.

        Raises:
            UnavailableError: If Redis is away.
        """
        async with self._connection.translated():
            picture: bytes | None = await self._connection.client.hget(self._pictures, item_id)
        return picture

    async def _load(self) -> str:
        """Apply all records and return the stream position to follow from."""
        async with self._follower.translated():
            # First the position: what changes while we read is applied again, never missed.
            newest = await self._follower.client.xrevrange(self._stream, count=1)
            number = int(await self._follower.client.get(self._number) or 0)
        n_records, cursor = 0, None
        while cursor != 0:
            async with self._follower.translated():
                cursor, found = await self._follower.client.hscan(
                    self._records, cursor or 0, count=_READ_COUNT
                )
            await self._apply([_decode(record) for record in found.values()])
            n_records += len(found)
        logger.info("loaded %d live items", n_records)
        await self._advance(number)
        return newest[0][0].decode() if newest else "0-0"

    async def _follow(self, position: str | None) -> None:
        while not self._stopping:
            try:
                if position is None:
                    position = await self._recover()
                else:
                    position = await self._read_on(position)
                self.stale = position is None
            except UnavailableError:
                self.stale, position = True, None
            except Exception:
                # A change that cannot be applied must not end the following of all others.
                logger.exception("a change of the catalogue was not applied; loading all again")
                self.stale, position = True, None
                await asyncio.sleep(_RETRY_S)

    async def _read_on(self, position: str) -> str:
        async with self._follower.translated():
            streams = await self._follower.client.xread(
                {self._stream: position}, count=_READ_COUNT, block=int(BLOCK_S * 1000)
            )
        if not self._connection.available:  # one slow command is no reason to stay away
            await self._connection.probe()
        if not streams:
            return position
        ((_, entries),) = streams
        numbers = [int(fields[b"n"]) for _, fields in entries]
        if numbers[0] > self._applied + 1:
            logger.warning("missed changes %d to %d", self._applied + 1, numbers[0] - 1)
            return await self._load()
        await self._apply([_decode(fields[b"r"]) for _, fields in entries])
        await self._advance(numbers[-1])
        newest: str = entries[-1][0].decode()
        return newest

    async def _recover(self) -> str | None:
        """Load everything once Redis is back: it may have lost, or gained, anything meanwhile."""
        # Both are asked: each remembers for its users whether Redis answers.
        if all([await one.probe() for one in (self._follower, self._connection)]):
            return await self._load()
        await asyncio.sleep(_RETRY_S)
        return None

    async def _advance(self, number: int) -> None:
        async with self._progress:
            self._applied = number
            self._progress.notify_all()


def _arguments(change: Change) -> tuple[str, str, bytes, str | bytes]:
    """Return what the script reads of a change."""
    record, picture, seen = change
    stored = _SAME_PICTURE if picture == "same" else picture or _NO_PICTURE
    before = _ANY_RECORD if seen == "any" else _picture_of(seen)
    return record.item_id, json.dumps(asdict(record), ensure_ascii=False), stored, before


def _picture_of(record: ItemRecord | None) -> str:
    """Return which picture a record names, as the script says it."""
    return "" if record is None else f"{record.picture}:{record.picture_digest or ''}"


def _decode(record: bytes) -> ItemRecord:
    return ItemRecord(**json.loads(record))
