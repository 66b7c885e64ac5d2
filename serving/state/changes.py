"""What a change of the live catalogue is, and the scripts by which Redis takes it as a whole."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

_STREAM_LENGTH = 10_000  # a replica that falls further behind loads everything again

# Number, record and announcement change together or not at all. The number orders the changes of
# all replicas, and a gap in it shows a follower that it missed some. The epoch names the history
# that numbers belong to: a new one begins where Redis has none, or a lower number than the writer
# has seen in it, for then it lost changes.
# A change that was made from a record whose picture is another by now is refused, with all others:
# it would name a picture that is not there. Only pictures are compared, because a change replaces
# everything else.
WRITE = """
local function picture_of(record)
  if not record then return '' end
  local stored = cjson.decode(record)
  local digest = stored.picture_digest
  if not digest or digest == cjson.null then digest = '' end
  return (stored.picture or 'none') .. ':' .. digest
end
for i = 8, #ARGV, 4 do
  local seen = ARGV[i + 3]
  if seen ~= ARGV[4] and seen ~= picture_of(redis.call('HGET', KEYS[2], ARGV[i])) then
    return false
  end
end
local epoch, number = redis.call('GET', KEYS[5]), tonumber(redis.call('GET', KEYS[1]) or 0)
if not epoch or (epoch == ARGV[6] and number < tonumber(ARGV[7])) then
  epoch = ARGV[5]
  redis.call('SET', KEYS[5], epoch)
end
for i = 8, #ARGV, 4 do
  local item_id, record, picture = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  number = redis.call('INCR', KEYS[1])
  redis.call('HSET', KEYS[2], item_id, record)
  if picture == ARGV[2] then
    redis.call('HDEL', KEYS[3], item_id)
  elseif picture ~= ARGV[3] then
    redis.call('HSET', KEYS[3], item_id, picture)
  end
  local entry = {'n', number, 'e', epoch, 'r', record}
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
end
return {number, epoch}
"""
# Read in one moment: the entry after this position has the number after this one.
POSITION = """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local number, epoch = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
return {newest and newest[1] or '0-0', number, epoch}
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


class Point(NamedTuple):
    """A state of the catalogue; numbers of different epochs do not compare."""

    number: int
    epoch: str  # empty: nothing was written yet


def write_arguments(changes: Sequence[Change], applied: Point) -> list[Any]:
    """Return what ``WRITE`` reads.

    Args:
        changes: To write.
        applied: State of the writer.
    """
    arguments: list[Any] = [_STREAM_LENGTH, _NO_PICTURE, _SAME_PICTURE, _ANY_RECORD]
    arguments += [uuid.uuid4().hex, applied.epoch, applied.number]
    for record, picture, seen in changes:
        arguments += [record.item_id, json.dumps(asdict(record), ensure_ascii=False)]
        arguments.append(_SAME_PICTURE if picture == "same" else picture or _NO_PICTURE)
        arguments.append(_ANY_RECORD if seen == "any" else _picture_of(seen))
    return arguments


def _picture_of(record: ItemRecord | None) -> str:
    """Return which picture a record names, as the script says it."""
    return "" if record is None else f"{record.picture}:{record.picture_digest or ''}"


def read_point(number: bytes | int | None, epoch: bytes | None) -> Point:
    """Return a point from what is stored, or not, under its two keys."""
    return Point(int(number or 0), (epoch or b"").decode())


def read_record(record: bytes) -> ItemRecord:
    """Return a stored record."""
    return ItemRecord(**json.loads(record))
