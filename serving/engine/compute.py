"""The threads on which the models run and words are read."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

from serving.errors import OverloadedError

P = ParamSpec("P")
R = TypeVar("R")


class ComputeThread:
    """Runs functions one after the other, outside the event loop.

    What runs on one such thread needs no locks. More threads for the same work would not make it
    faster, because torch spreads a single call over the cores already.

    Args:
        max_queue: Number of waiting calls at which ``run`` refuses.
        on_run: Function that gets the seconds that a call waited, and those that it ran.
    """

    def __init__(
        self, *, max_queue: int, on_run: Callable[[float, float], None] | None = None
    ) -> None:
        self._max_queue = max_queue
        self._on_run = on_run
        self._pending = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function`` returns, for a call that may be refused under load.

        Raises:
            OverloadedError: If too many calls are waiting.
        """
        if self._pending >= self._max_queue:
            raise OverloadedError(
                f"at most {self._max_queue} requests may wait to be computed; slow down"
            )
        return await self.run_always(function, *args, **kwargs)

    async def run_always(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function`` returns, for work that must not be refused.

        The function does not run for a caller that is cancelled before its turn.
        """
        self._pending += 1
        asked = time.perf_counter()

        def run() -> R:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if self._on_run is not None:
                    self._on_run(began - asked, time.perf_counter() - began)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, run)
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Finish the running call, and drop the waiting ones."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class Threads(NamedTuple):
    """The threads of an engine.

    Args:
        catalogue: Ranks, searches and changes the catalogue; nothing else touches it.
        towers: Runs the towers, which are slow and read no catalogue.
        reading: Reads words on photos, which is slower still.
    """

    catalogue: ComputeThread
    towers: ComputeThread
    reading: ComputeThread
