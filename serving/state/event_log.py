"""The log of all events in Redis, from which the next events table is exported.

What is appended is counted in the same step (``serving.state.event_counts``).
"""

import hashlib
import json
import logging
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

from recsys.answers import Event
from recsys.data.timestamps import from_us, to_us
from serving.state.connection import RedisConnection
from serving.state.event_counts import COUNT, MAX_ITEMS, count_keys
from serving.state.unreadable import UnreadableError

logger = logging.getLogger(__name__)

REMEMBERED = 100_000  # latest events, at least, that are recognised when they are sent again
FIELD = b"e"  # of an entry of the stream
_DETAILS = ("quantity", "value", "propensity", "placement")

# Appends what was not seen lately, and keeps the stream within its length: the oldest entries go.
# Entries are counted from the first one ever. So the state says how many went that no export had:
# `trimmed` and `exported` are the numbers of the last entries that went and that were exported.
# What was seen is in two sets, the older of which is dropped when the newer one is full.
_APPEND = (
    """
local stream, state, seen, seen_before, counting, paired, paired_before = unpack(KEYS)
local order = cjson.decode(ARGV[1])
"""
    + COUNT
    + """
local added = 0
for _, event in ipairs(order.events) do
  if redis.call('SISMEMBER', seen_before, event.id) == 0
      and redis.call('SADD', seen, event.id) == 1 then
    redis.call('XADD', stream, '*', 'e', event.stored)
    count(event)
    added = added + 1
  end
end
redis.call('HINCRBY', state, 'added', added)
for set, set_before in pairs({[seen] = seen_before, [paired] = paired_before}) do
  if redis.call('SCARD', set) >= order.remembered then
    redis.call('UNLINK', set_before)
    redis.call('RENAME', set, set_before)
  end
end

local lost = 0
if redis.call('XLEN', stream) > order.max_events then
  local went = redis.call('XTRIM', stream, 'MAXLEN', '~', order.max_events)
  local trimmed = redis.call('HINCRBY', state, 'trimmed', went)
  local exported = tonumber(redis.call('HGET', state, 'exported') or 0)
  lost = math.max(0, trimmed - math.max(exported, trimmed - went))
  redis.call('HINCRBY', state, 'lost', lost)
end
return {added, lost}
"""
)


class EventLog:
    """Keeps the latest events of all users and kinds in the order of their arrival, each once.

    Two events are the same if user, item, kind and timestamp are. An event that is sent again is
    recognised among the last ``remembered`` events.

    Args:
        connection: Connection to Redis.
        namespace: First part of the keys.
        max_events: About how many events are kept, the last ones.
        on_lost: Function called with the number of events that had to go before any export.
        remembered: Number of events, at least, among which a repeated one is recognised.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        namespace: str,
        max_events: int,
        on_lost: Callable[[int], None] = lambda count: None,
        remembered: int = REMEMBERED,
    ) -> None:
        self._connection = connection
        counting, _, *paired = count_keys(namespace)
        self._keys = [*log_keys(namespace), counting, *paired]
        self._max_events = max_events
        self._remembered = remembered
        self._on_lost = on_lost
        self._has_warned = False

    async def append(self, events: Sequence[Event]) -> int:
        """Store events, all or none, and return how many were new.

        Raises:
            UnavailableError: If Redis is away; send the same events again.
        """
        order = {
            "events": [_entry(one) for one in events],
            "max_events": self._max_events,
            "remembered": self._remembered,
            "max_items": MAX_ITEMS,
        }
        async with self._connection.translated():
            added, lost = await self._connection.client.eval(
                _APPEND, len(self._keys), *self._keys, json.dumps(order)
            )
        if lost:
            self._warn(lost)
        return int(added)

    def _warn(self, lost: int) -> None:
        self._on_lost(lost)
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the event log is full, and %d events went that were never exported; run `recsys "
                "events export` more often, or raise event_log_events. This is logged once; "
                "recsys_events_lost_total counts on",
                lost,
            )


def log_keys(namespace: str) -> list[str]:
    """Return the keys of the stream, its state, and the two sets of events that were seen."""
    # The braces put all keys of the log on one node of a cluster: the script needs it.
    names = ("stream", "state", "seen", "seen-before")
    return [f"{{{namespace}:events}}:{name}" for name in names]


def encode_event(event: Event) -> str:
    """Return an event as the text of an entry; details that have their default are left out."""
    details = {
        name: value for name in _DETAILS if (value := getattr(event, name)) != getattr(Event, name)
    }
    fields = [*_key(event), *([details] if details else [])]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def decode_event(text: bytes) -> dict[str, Any]:
    """Return an event as a row: the fields of ``Event``, with a time zone.

    Raises:
        UnreadableError: If ``encode_event`` cannot have written the text.
    """
    try:
        user_id, item_id, kind, timestamp_us, *details = json.loads(text)
        event = Event(user_id, item_id, kind, from_us(timestamp_us), **dict(*details))
        if not all(isinstance(one, str) and one for one in (user_id, item_id, kind)):
            raise TypeError("its user, item and kind must be text")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UnreadableError(str(error)) from error
    return vars(event)


def _entry(event: Event) -> dict[str, Any]:
    """Return an event in the words of the script."""
    return {
        "id": _short(*_key(event)),
        "stored": encode_event(event),
        "pair": _short(event.user_id, event.item_id),
        "item_id": event.item_id,
        "kind": event.kind,
        "time_s": to_us("timestamp", event.timestamp) / 1e6,
    }


def _key(event: Event) -> tuple[str, str, str, int]:
    return event.user_id, event.item_id, event.kind, to_us("timestamp", event.timestamp)


def _short(*values: str | int) -> str:
    """Return a short text that is the same for equal values only: 96 bits of a hash."""
    digest = hashlib.blake2b(json.dumps(values).encode(), digest_size=12).digest()
    return b64encode(digest).decode()
