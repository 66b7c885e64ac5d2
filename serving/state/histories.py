"""Live user histories in Redis: what users did since the bundle was trained."""

import json
from collections.abc import Mapping, Sequence

from redis import exceptions

from recsys.answers import Event
from recsys.data.timestamps import from_us, to_us
from serving.state.connection import RedisConnection
from serving.state.unreadable import Unreadable, UnreadableError

# Adds a user's events, drops the oldest ones beyond the limit and renews the time to live.
# Redis runs a script as a whole, so a lost connection never leaves half of it done.
_RECORD = """
local history, order = KEYS[1], cjson.decode(ARGV[1])
local added = 0
for _, event in ipairs(order.events) do
  added = added + redis.call('ZADD', history, event.timestamp_us, event.stored)
end
redis.call('ZREMRANGEBYRANK', history, 0, -order.max_events - 1)
if order.ttl_s then
  redis.call('EXPIRE', history, order.ttl_s)
end
return added
"""


class LiveHistories:
    """Keeps the last events of each user, each distinct event once.

    Two events of a user are the same if item, kind and timestamp are. A user's events are one
    sorted set by time, so they may arrive late or several times.

    Args:
        connection: Connection to Redis.
        namespace: First part of the keys.
        max_events: Number of events kept of each user, the last ones.
        ttl_s: Seconds after the last recorded event when a user is forgotten; None keeps users.
        unreadable: What takes note of events that cannot be read; they are left out.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        namespace: str,
        max_events: int,
        ttl_s: int | None,
        unreadable: Unreadable,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._max_events = max_events
        self._ttl_s = ttl_s
        self._unreadable = unreadable

    async def record(self, events: Sequence[Event]) -> int:
        """Store events and return how many were new; the others were there already.

        The events of one user are stored together or not at all. Different users are not: keys of
        a cluster lie on different nodes, where no transaction spans them. After an error, send the
        same events again: those that were stored stay as they are.

        Raises:
            UnavailableError: If Redis is away; the events of some users may be stored.
        """
        if not events:
            return 0
        by_user: dict[str, list[Event]] = {}
        for event in events:
            by_user.setdefault(event.user_id, []).append(event)
        # One round trip, and in the embedded Redis one write to disk, for all users.
        pipeline = self._connection.client.pipeline(transaction=False)
        for user_id, theirs in by_user.items():
            pipeline.eval(_RECORD, 1, self._key(user_id), json.dumps(self._order(theirs)))
        async with self._connection.translated():
            return sum(await pipeline.execute())

    async def read(self, user_id: str) -> list[Event]:
        """Return a user's live events, oldest first, without those that cannot be read.

        An event that an earlier release stored with several quantities or values comes as often;
        ``recsys.data.interactions.merge_histories`` counts it once.

        Raises:
            UnavailableError: If Redis is away.
        """
        events: list[Event] = []
        for text in await self._stored(user_id):
            try:
                events.append(_decode(user_id, text))
            except UnreadableError as error:
                self._unreadable.note("event", error)
        return events

    async def _stored(self, user_id: str) -> Sequence[bytes]:
        async with self._connection.translated():
            try:
                stored: list[bytes] = await self._connection.client.zrange(
                    self._key(user_id), 0, -1
                )
            except exceptions.ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                self._unreadable.note("event", UnreadableError("its key has another type"))
                return []
        return stored

    def _order(self, events: Sequence[Event]) -> Mapping[str, object]:
        """Return the argument of the script that records events."""
        order: dict[str, object] = {
            "events": [_encode(event) for event in events],
            "max_events": self._max_events,
        }
        return order if self._ttl_s is None else order | {"ttl_s": self._ttl_s}

    def _key(self, user_id: str) -> str:
        return f"{self._namespace}:history:{user_id}"


def _encode(event: Event) -> Mapping[str, object]:
    """Return an event as text, and its time; Redis keeps equal texts once."""
    timestamp_us = to_us("timestamp", event.timestamp)
    fields = (timestamp_us, event.kind, event.item_id)
    stored = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return {"timestamp_us": timestamp_us, "stored": stored}


def _decode(user_id: str, stored: bytes) -> Event:
    try:
        # Earlier releases stored quantity and value after these.
        timestamp_us, kind, item_id, *_ = json.loads(stored)
        if not (isinstance(kind, str) and isinstance(item_id, str)):
            raise TypeError("its kind and its item must be text")
        return Event(user_id, item_id, kind, from_us(timestamp_us))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UnreadableError(str(error)) from error
