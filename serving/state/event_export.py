"""Write the event log as events tables, each event into exactly one file."""

import json
import logging
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys.data.files import make_folder, whole_file
from recsys.errors import InvalidArgumentError
from recsys.schema import EventSchema
from serving.state.connection import RedisConnection
from serving.state.event_log import FIELD, decode_event, log_keys
from serving.state.unreadable import UnreadableError

logger = logging.getLogger(__name__)

READ_COUNT = 5_000
# The events table, and what only evaluation of logged choices reads.
SCHEMA = dict(EventSchema.create_empty().schema) | {
    "propensity": pl.Float64(),
    "placement": pl.String(),
}
# Log, and place of the last event in it.
_NAME = re.compile(r"events-([0-9a-f]{8})-(\d+)-(\d+)\.parquet")

# An export takes the entries after the cursor up to the newest one. It is noted as pending before
# it is written, with its folder, and again and again the same one until its file is there. A file
# that Redis does not know of, because it lost the end of that export, is not written twice either:
# the cursor is never before the newest file of the folder.
_BEGIN = """
local stream, state = unpack(KEYS)
local order = cjson.decode(ARGV[1])
local function is_after(one, other)
  local ms, seq = one:match('(%d+)-(%d+)')
  local other_ms, other_seq = other:match('(%d+)-(%d+)')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  return ms > other_ms or ms == other_ms and tonumber(seq) > tonumber(other_seq)
end

local pending = redis.call('HGET', state, 'pending')
if pending then
  local range = cjson.decode(pending)
  if range.folder ~= order.folder and order.takes_over then
    range.folder = order.folder
    pending = cjson.encode(range)
    redis.call('HSET', state, 'pending', pending)
  end
  return pending
end

redis.call('HSETNX', state, 'id', order.new_id)
local id = redis.call('HGET', state, 'id')
local cursor = redis.call('HGET', state, 'cursor') or '0-0'
local newest_file = order.newest_files[id]
if newest_file and is_after(newest_file, cursor) then
  cursor = newest_file
end
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if not newest or not is_after(newest[1], cursor) then
  return false
end
pending = cjson.encode({
  id = id,
  after = cursor,
  last = newest[1],
  number = tonumber(redis.call('HGET', state, 'added')),
  folder = order.folder
})
redis.call('HSET', state, 'pending', pending)
return pending
"""
# Returns how many events went before any export since the export before.
_END = """
local state = KEYS[1]
local pending = redis.call('HGET', state, 'pending')
if not pending or cjson.decode(pending).last ~= ARGV[1] then
  return 0
end
local range = cjson.decode(pending)
local lost = tonumber(redis.call('HGET', state, 'lost') or 0)
local reported = tonumber(redis.call('HGET', state, 'reported') or 0)
redis.call('HSET', state, 'cursor', range.last, 'exported', range.number, 'reported', lost)
redis.call('HDEL', state, 'pending')
return lost - reported
"""


class Exported(NamedTuple):
    """What an export wrote.

    Args:
        file: The new file; None if there was nothing to export.
        n_events: Number of events in it.
        n_unreadable: Number of entries of the log that could not be read, which are left out.
        n_lost: Number of events that left the full log before any export, since the last one.
    """

    file: Path | None
    n_events: int = 0
    n_unreadable: int = 0
    n_lost: int = 0


class _Range(NamedTuple):
    """The entries of one export: those after one id, up to and with another."""

    id: str
    after: str
    last: str
    number: int
    folder: str


async def export_events(
    connection: RedisConnection, folder: Path, *, namespace: str, takes_over: bool = False
) -> Exported:
    """Write the events since the last export as one more file of a folder.

    Every event is in one file, also if the export is killed at any moment and called again, or runs
    twice at a time. The columns are those of ``EventSchema``, propensity and placement.

    Args:
        connection: Connection to the Redis of a service.
        folder: Folder of the files, made if needed. The name of a file has the place of its last
            event in the log.
        namespace: First part of the keys, as the service has it.
        takes_over: Whether to write here what an export into another folder did not finish.

    Raises:
        UnavailableError: If Redis is away.
        InvalidArgumentError: If an export into another folder was not finished.
        FileAccessError: If the folder or the file cannot be written.
    """
    make_folder(folder)
    found = await _begin(connection, folder, namespace, takes_over=takes_over)
    if found is None:
        return Exported(None)
    file = folder / f"events-{found.id}-{found.last}.parquet"
    n_events, n_unreadable = 0, 0
    if file.exists():  # written by an export that was killed before it could say so
        n_events = pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
    else:
        table, n_unreadable = await _read(connection, found, namespace)
        n_events = len(table)
        with whole_file(file) as scratch:
            table.write_parquet(scratch)
    return Exported(file, n_events, n_unreadable, await _end(connection, found, namespace))


async def _begin(
    connection: RedisConnection, folder: Path, namespace: str, *, takes_over: bool
) -> _Range | None:
    """Return the range to export; None if there is nothing new."""
    order = {
        "folder": str(folder.absolute()),
        "takes_over": takes_over,
        "newest_files": _newest_files(folder),
        "new_id": uuid.uuid4().hex[:8],
    }
    keys = log_keys(namespace)[:2]
    async with connection.translated():
        pending = await connection.client.eval(_BEGIN, len(keys), *keys, json.dumps(order))
    if pending is None:
        return None
    found = _Range(**json.loads(pending))
    if found.folder != order["folder"]:
        raise InvalidArgumentError(
            f"the export into {found.folder} was not finished; run it again with that folder, so "
            "that no event is in two files, or pass --takes-over if it is gone"
        )
    return found


def _newest_files(folder: Path) -> dict[str, str]:
    """Return the place of the last exported event of each log that has files in a folder."""
    places: dict[str, tuple[int, int]] = {}
    for one in folder.iterdir():
        if name := _NAME.fullmatch(one.name):
            log, place = name[1], (int(name[2]), int(name[3]))
            places[log] = max(place, places.get(log, place))
    return {log: f"{ms}-{number}" for log, (ms, number) in places.items()}


async def _read(
    connection: RedisConnection, found: _Range, namespace: str
) -> tuple[pl.DataFrame, int]:
    """Return the events of a range as a table, and the number of those that cannot be read."""
    stream, *_ = log_keys(namespace)
    tables, n_unreadable, after = [pl.DataFrame(schema=SCHEMA)], 0, found.after
    while True:
        async with connection.translated():
            entries = await connection.client.xrange(
                stream, f"({after}", found.last, count=READ_COUNT
            )
        if not entries:
            return pl.concat(tables), n_unreadable
        rows = []
        for _, fields in entries:
            try:
                rows.append(decode_event(fields[FIELD]))
            except (UnreadableError, KeyError) as error:
                n_unreadable += 1
                logger.warning("an entry of the event log is left out: %s", error)
        tables.append(pl.DataFrame(rows, schema=SCHEMA))
        after = entries[-1][0].decode()


async def _end(connection: RedisConnection, found: _Range, namespace: str) -> int:
    """Note that a range is in a file; return the events lost before, if this note is the first."""
    state = log_keys(namespace)[1]
    async with connection.translated():
        return int(await connection.client.eval(_END, 1, state, found.last))
