"""The one thread on which the recommender runs."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from serving.errors import OverloadedError

P = ParamSpec("P")
R = TypeVar("R")


class ComputeThread:
    """Runs functions one after the other, away from the event loop.

    One thread is what lets the recommender do without locks. More would not make it faster: torch
    spreads a single call over the cores already.

    Args:
        max_queue: Calls waiting, beyond which ``run`` refuses.
    """

    def __init__(self, *, max_queue: int) -> None:
        self._max_queue = max_queue
        self._pending = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recommender")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function`` returns for a caller who can be told to slow down.

        Raises:
            OverloadedError: If too many calls are waiting.
        """
        if self._pending >= self._max_queue:
            raise OverloadedError(
                f"at most {self._max_queue} requests may wait to be computed; slow down"
            )
        return await self.run_always(function, *args, **kwargs)

    async def run_always(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function`` returns, for work that must not be dropped.

        A caller that is cancelled before its turn costs nothing.
        """
        self._pending += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)
