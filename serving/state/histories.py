"""Live user histories in Redis: what users did since the bundle was trained."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from recsys.recommender import Event
from serving.state.connection import RedisConnection


class UserEvent(NamedTuple):
    """An event to record."""

    user_id: str
    event: Event
    quantity: float = 1.0
    value: float | None = None


class LiveHistories:
    """Keeps the last events of each user, each distinct event once.

    A user is one sorted set by time, so that events may arrive late or twice.

    Args:
        connection: To Redis.
        namespace: First part of the keys.
        max_events: Events kept of each user, the last.
        ttl_s: Forget a user this long after the last event was recorded; None: never.
    """

    def __init__(
        self, connection: RedisConnection, *, namespace: str, max_events: int, ttl_s: int | None
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._max_events = max_events
        self._ttl_s = ttl_s

    async def record(self, events: Sequence[UserEvent]) -> int:
        """Store events and return how many were new; the others were there already.

        Raises:
            UnavailableError: If Redis is away; some of the events may have been stored, and
                sending all of them again is right.
        """
        by_user: dict[str, dict[str, int]] = {}
        for event in events:
            by_user.setdefault(event.user_id, {})[_encode(event)] = event.event.timestamp_us
        # One round trip and one write to disk for all; each user's commands touch one key.
        pipeline = self._connection.client.pipeline(transaction=False)
        for user_id, members in by_user.items():
            self._add(pipeline, self._key(user_id), members)
        async with self._connection.translated():
            replies = await pipeline.execute()
        per_user = len(replies) // len(by_user) if by_user else 1
        return int(sum(replies[::per_user]))  # the first reply of each user is ZADD's

    async def read(self, user_id: str) -> list[Event]:
        """Return a user's live events, oldest first.

        Raises:
            UnavailableError: If Redis is away.
        """
        async with self._connection.translated():
            members = await self._connection.client.zrange(self._key(user_id), 0, -1)
        return [_decode(member) for member in members]

    def _add(self, pipeline: Any, key: str, members: dict[str, int]) -> None:
        pipeline.zadd(key, members)
        pipeline.zremrangebyrank(key, 0, -self._max_events - 1)
        if self._ttl_s is not None:
            pipeline.expire(key, self._ttl_s)

    def _key(self, user_id: str) -> str:
        return f"{self._namespace}:history:{user_id}"


def _encode(event: UserEvent) -> str:
    """Return an event as text; equal events give equal text, which is how repeats are seen."""
    item_id, kind, timestamp_us = event.event
    fields = (timestamp_us, kind, item_id, event.quantity, event.value)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _decode(member: bytes) -> Event:
    timestamp_us, kind, item_id, _, _ = json.loads(member)
    return Event(item_id, kind, timestamp_us)
