"""How many users took each item since a bundle was trained, counted in Redis as events arrive.

A count weighs each user by exp(-age / mean life). Redis keeps the logarithm of the sum of
exp(time / mean life), which is that of the count plus the time in mean lives. It needs no time
beside it, an event may come late, and the order of the items is the same at any moment.
"""

import asyncio
import hashlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from recsys.ranking.live_counts import SHORT, LiveCount
from serving.errors import OverloadedError, UnavailableError
from serving.state.connection import RedisConnection

logger = logging.getLogger(__name__)

TOP = 1_000  # items whose counts are read, of each kind of count
MAX_ITEMS = 10_000  # items that are counted; beyond that, those with the smallest counts go
READ_EVERY_S = 2.0
_DECAY_S = 600.0  # after which counts are taken over again where no event has come
_DAY_S = 86_400
# Groups and mean lives in the order of the fields of ``LiveCount``.
_NAMES = ("users:short", "users:long", "buyers:short", "buyers:long")

# Counts an event for every bundle that is served. Of a user's events with an item the first one
# counts, as far as the latest ones are remembered; likewise of those of the target kinds.
COUNT = """
local function add(key, item_id, log_weight)
  local stored = tonumber(redis.call('ZSCORE', key, item_id)) or -math.huge
  local high, low = math.max(stored, log_weight), math.min(stored, log_weight)
  local sum = high + math.log(1 + math.exp(low - high))
  redis.call('ZADD', key, string.format('%.17g', sum), item_id)
end

local function is_first(pair)
  return redis.call('SISMEMBER', paired_before, pair) == 0
    and redis.call('SADD', paired, pair) == 1
end

local bundles = {}
local stored_bundles = redis.call('HGETALL', counting)
for place = 1, #stored_bundles, 2 do
  bundles[stored_bundles[place]] = cjson.decode(stored_bundles[place + 1])
end

local function count(event)
  for name, bundle in pairs(bundles) do
    local is_bought = bundle.kinds[event.kind]
    if is_bought ~= nil and event.time_s >= bundle.since_s then
      for _, group in ipairs({'users', 'buyers'}) do
        if (group == 'users' or is_bought) and is_first(name .. group .. event.pair) then
          for life, mean_s in pairs(bundle.mean_s) do
            local key = counting .. ':' .. name .. ':' .. group .. ':' .. life
            add(key, event.item_id, event.time_s / mean_s)
            redis.call('ZREMRANGEBYRANK', key, 0, -order.max_items - 1)
          end
        end
      end
    end
  end
end
"""
# Returns the time and the largest counts. After a day without any replica that asks for a bundle,
# its counts go.
_READ = """
local counting, asked = unpack(KEYS)
local order = cjson.decode(ARGV[1])
local now_s = tonumber(redis.call('TIME')[1])
local asked_s = tonumber(redis.call('HGET', asked, order.name) or 0)
if asked_s < now_s - order.day_s / 24 then
  redis.call('HSET', counting, order.name, ARGV[2])
  redis.call('HSET', asked, order.name, now_s)
  local each = redis.call('HGETALL', asked)
  for place = 1, #each, 2 do
    if tonumber(each[place + 1]) < now_s - order.day_s then
      redis.call('HDEL', counting, each[place])
      redis.call('HDEL', asked, each[place])
      for _, count in ipairs(order.counts) do
        redis.call('UNLINK', counting .. ':' .. each[place] .. ':' .. count)
      end
    end
  end
end
local found = {now_s}
for _, count in ipairs(order.counts) do
  local key = counting .. ':' .. order.name .. ':' .. count
  table.insert(found, redis.call('ZREVRANGE', key, 0, order.top - 1, 'WITHSCORES'))
end
return found
"""


class Counted(NamedTuple):
    """What is counted for a bundle.

    Args:
        since_us: Moment of its statistics, microseconds UTC; events before are in them.
        window_days: Its window, the long mean life.
        kinds: Whether an event kind counts as a purchase, by the name of each that it knows.
    """

    since_us: int
    window_days: float
    kinds: Mapping[str, bool]

    def means_s(self) -> dict[str, float]:
        """Return the mean lives in seconds."""
        long_s = self.window_days * _DAY_S
        return {"short": SHORT * long_s, "long": long_s}

    def text(self) -> str:
        """Return it as the script reads it."""
        spec = {"since_s": self.since_us / 1e6, "mean_s": self.means_s(), "kinds": self.kinds}
        return json.dumps(spec, sort_keys=True)

    def name(self) -> str:
        """Return a name for its counts, which bundles that count the same things share."""
        return hashlib.blake2b(self.text().encode(), digest_size=6).hexdigest()


def count_keys(namespace: str) -> list[str]:
    """Return the keys of what is counted for, who asked when, and the pairs that were counted."""
    names = ("counting", "asked", "paired", "paired-before")
    return [f"{{{namespace}:events}}:{name}" for name in names]


class EventCounts:
    """Reads the counts of a bundle again and again, and passes them on.

    Args:
        connection: Connection to Redis.
        namespace: First part of the keys.
        counted: What is counted for the bundle.
        apply: Function that takes over the counts of the items with the largest ones, by item id.
        read_every_s: Seconds between two reads.
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        namespace: str,
        counted: Counted,
        apply: Callable[[Mapping[str, LiveCount]], Awaitable[None]],
        read_every_s: float = READ_EVERY_S,
    ) -> None:
        self._connection = connection
        self._keys = count_keys(namespace)[:2]
        self._counted = counted
        self._apply = apply
        self._read_every_s = read_every_s
        self._applied: tuple[float, Any] = (-math.inf, None)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over the counts, then those of each moment; what Redis lacks now comes later."""
        await self._follow_once()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def read(self) -> None:
        """Take over the counts as they are now.

        Raises:
            UnavailableError: If Redis is away.
        """
        order = {
            "name": self._counted.name(),
            "counts": _NAMES,
            "top": TOP,
            "day_s": _DAY_S,
        }
        async with self._connection.translated():
            now_s, *found = await self._connection.client.eval(
                _READ, len(self._keys), *self._keys, json.dumps(order), self._counted.text()
            )
        applied_s, before = self._applied
        if found != before or now_s > applied_s + _DECAY_S:
            await self._apply(self._decode(now_s, found))
            self._applied = (now_s, found)

    def _decode(self, now_s: float, found: list[list[bytes]]) -> Mapping[str, LiveCount]:
        means_s = self._counted.means_s()
        counts: dict[str, list[float]] = {}
        for place, (name, flat) in enumerate(zip(_NAMES, found, strict=True)):
            at_now = now_s / means_s[name.partition(":")[2]]
            for item_id, log_sum in zip(flat[::2], flat[1::2], strict=True):
                values = counts.setdefault(item_id.decode(), [0.0] * len(_NAMES))
                values[place] = math.exp(float(log_sum) - at_now)
        return {item_id: LiveCount(*values) for item_id, values in counts.items()}

    async def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), self._read_every_s)
            except TimeoutError:
                await self._follow_once()

    async def _follow_once(self) -> None:
        try:
            await self.read()
        except (UnavailableError, OverloadedError):
            return  # the counts of before stay until the next read
        except Exception:
            logger.exception("the live counts could not be taken over; trying again")
