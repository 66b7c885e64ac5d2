"""How many calls a second each client may make."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from serving.errors import OverloadedError

MAX_CLIENTS = 10_000  # remembered; one that was forgotten may make a burst again


class _Bucket(NamedTuple):
    calls: float
    at: float


class RateLimits:
    """Limits the calls of each client, by a token bucket.

    A client may make as many calls at once as in a second, and then as many a second on average.

    Args:
        per_s: Calls a second; None for no limit.
        clock: Function that returns a time in seconds.
    """

    def __init__(self, per_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # least recently used first

    def take(self, client: str) -> None:
        """Count a call.

        Raises:
            OverloadedError: If the client has made too many; it knows after how long to call again.
        """
        if self._per_s is None:
            return
        burst, now = max(1.0, self._per_s), self._clock()
        old = self._buckets.pop(client, _Bucket(burst, now))
        calls = min(burst, old.calls + (now - old.at) * self._per_s)
        is_allowed = calls >= 1
        self._buckets[client] = _Bucket(calls - is_allowed, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not is_allowed:
            raise OverloadedError(
                f"at most {self._per_s:g} calls a second may come from one client; slow down",
                retry_after_ms=max(1, round(1000 * (1 - calls) / self._per_s)),
            )
