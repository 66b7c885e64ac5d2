"""A change of the live catalogue, and the scripts that store and locate changes in Redis."""

import json
import uuid
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from serving.state.records import ItemRecord, encode_record

_STREAM_LENGTH = 10_000  # a replica that falls further behind loads everything again

# Stores the changes of one call, all of them or none. Number, record and announcement change
# together. The number orders the changes of all replicas, and a gap in it shows a follower that it
# missed some. The epoch names the history that the numbers belong to. A new epoch begins where
# Redis has none, or has a lower number than the writer has applied in the same epoch: then Redis
# lost changes.
# A change with `seen_picture` was made from a stored record. If that record's picture was replaced
# since, the call is refused, for its record would name a picture that is gone. Only the pictures
# are compared, because a change replaces everything else.
# A change with `forget` removes the record, and 'f' marks its entry; earlier releases read the
# record of that entry, which is the item as the writer's bundle has it. Such a change may have been
# decided on a record, `seen_argument`; the call is refused if there is another by now.
# A call that would let the pictures grow beyond their budget is refused. Their size is counted anew
# where an earlier release has changed their number meanwhile.
WRITE = """
local number_key, records_key, pictures_key, stream_key, epoch_key, sizes_key = unpack(KEYS)
local order = cjson.decode(ARGV[1])

local function picture_bytes()
  local known = redis.call('HMGET', sizes_key, 'count', 'bytes')
  if tonumber(known[1] or -1) == redis.call('HLEN', pictures_key) then
    return tonumber(known[2])
  end
  local bytes = 0
  for _, item_id in ipairs(redis.call('HKEYS', pictures_key)) do
    bytes = bytes + redis.call('HSTRLEN', pictures_key, item_id)
  end
  return bytes
end

local function picture_of(record)
  if not record then return '' end
  local stored = cjson.decode(record)
  local digest = stored.picture_digest
  if not digest or digest == cjson.null then digest = '' end
  return (stored.picture or 'none') .. ':' .. digest
end

for _, change in ipairs(order.changes) do
  local stored = redis.call('HGET', records_key, change.item_id)
  if change.seen_picture and change.seen_picture ~= picture_of(stored) then
    return false
  end
  if change.seen_argument and ARGV[change.seen_argument] ~= stored then
    return false
  end
end

local before = picture_bytes()
local after = before
for _, change in ipairs(order.changes) do
  if change.picture ~= 'keep' then
    after = after - redis.call('HSTRLEN', pictures_key, change.item_id)
  end
  if change.picture == 'store' then
    after = after + #ARGV[change.picture_argument]
  end
end
if after > before and after > order.picture_bytes then
  return {'full', before}
end

local epoch = redis.call('GET', epoch_key)
local number = tonumber(redis.call('GET', number_key) or 0)
local lost_changes = epoch == order.applied.epoch and number < order.applied.number
if not epoch or lost_changes then
  epoch = order.new_epoch
  redis.call('SET', epoch_key, epoch)
end

for _, change in ipairs(order.changes) do
  number = redis.call('INCR', number_key)
  if change.forget then
    redis.call('HDEL', records_key, change.item_id)
  else
    redis.call('HSET', records_key, change.item_id, change.record)
  end
  if change.picture == 'drop' then
    redis.call('HDEL', pictures_key, change.item_id)
  elseif change.picture == 'store' then
    redis.call('HSET', pictures_key, change.item_id, ARGV[change.picture_argument])
  end
  local entry = {'n', number, 'e', epoch, 'r', change.record}
  if change.forget then
    entry[7], entry[8] = 'f', '1'
  end
  redis.call('XADD', stream_key, 'MAXLEN', '~', order.stream_length, '*', unpack(entry))
end
redis.call('HSET', sizes_key, 'count', redis.call('HLEN', pictures_key), 'bytes', after)
return {number, epoch}
"""
# The clock of Redis is one for all replicas.
LOOK_UP = """
local time = redis.call('TIME')
return {time[1], time[2], #ARGV > 0 and redis.call('HMGET', KEYS[1], unpack(ARGV)) or {}}
"""
# Read in one moment: the entry after this position has the number after this one.
POSITION = """
local stream_key, number_key, epoch_key = unpack(KEYS)
local newest = redis.call('XREVRANGE', stream_key, '+', '-', 'COUNT', 1)[1]
local position = newest and newest[1] or '0-0'
return {position, redis.call('GET', number_key), redis.call('GET', epoch_key)}
"""


class SupersededError(Exception):
    """Another caller replaced a record, or its picture, meanwhile."""


class Change(NamedTuple):
    """A record to write.

    Args:
        record: The item as it shall be stored.
        picture: Bytes of the picture to store, "same" to keep the stored one, None to drop it.
        seen: Stored record from which this one was made, None if there was none; "any" where the
            stored record does not matter.
    """

    record: ItemRecord
    picture: bytes | Literal["same"] | None = None
    seen: ItemRecord | Literal["any"] | None = "any"


class Forgetting(NamedTuple):
    """A record to remove, with its picture.

    Args:
        record: The item as the bundle has it, for replicas of earlier releases.
        seen: Stored text of the record on which this was decided; None where it does not matter.
    """

    record: ItemRecord
    seen: bytes | None = None


class Point(NamedTuple):
    """A state of the catalogue; numbers of different epochs do not compare."""

    number: int
    epoch: str  # empty before the first write


def write_arguments(
    changes: Sequence[Change | Forgetting], applied: Point, *, picture_bytes: int
) -> list[str | bytes]:
    """Return the arguments of ``WRITE``: an order in JSON, then the bytes that it mentions.

    Args:
        changes: Changes to write, in their order.
        applied: State of the catalogue in the writing replica.
        picture_bytes: Largest size of all stored pictures together.
    """
    mentioned: list[bytes] = []  # JSON holds no bytes
    entries = [_entry(change, mentioned) for change in changes]
    order = {
        "changes": entries,
        "applied": applied._asdict(),
        "new_epoch": uuid.uuid4().hex,
        "stream_length": _STREAM_LENGTH,
        "picture_bytes": picture_bytes,
    }
    return [json.dumps(order, ensure_ascii=False), *mentioned]


def _entry(change: Change | Forgetting, mentioned: list[bytes]) -> dict[str, Any]:
    """Return a change in the words of the script; its bytes go to the end of ``mentioned``."""
    record = change.record
    entry: dict[str, Any] = {
        "item_id": record.item_id,
        "record": encode_record(record),
        "picture": "drop",
    }
    if isinstance(change, Forgetting):
        entry["forget"] = True
        if change.seen is not None:
            entry["seen_argument"] = _mention(change.seen, mentioned)
        return entry
    if change.picture == "same":
        entry["picture"] = "keep"
    elif change.picture:
        entry |= {"picture": "store", "picture_argument": _mention(change.picture, mentioned)}
    if change.seen != "any":
        entry["seen_picture"] = _picture_of(change.seen)
    return entry


def _mention(data: bytes, mentioned: list[bytes]) -> int:
    """Return the number of the argument that bytes become; Lua counts from 1, the order itself."""
    mentioned.append(data)
    return 1 + len(mentioned)


def _picture_of(record: ItemRecord | None) -> str:
    """Return which picture a record names, in the words of the script's ``picture_of``."""
    return "" if record is None else f"{record.picture}:{record.picture_digest or ''}"


def read_point(number: bytes | int | None, epoch: bytes | None) -> Point:
    """Return a point from the values under its two keys, None where there is no value."""
    return Point(int(number or 0), (epoch or b"").decode())
