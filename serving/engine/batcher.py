"""Batches: requests that arrive together are computed together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from serving.errors import OverloadedError

T = TypeVar("T")
R = TypeVar("R")


class _Waiting(NamedTuple, Generic[T, R]):
    request: T
    answer: asyncio.Future[R]


class Batcher(Generic[T, R]):
    """Groups requests into batches, for a function that is cheaper on many than on each alone.

    While one batch runs the next one fills, so batches grow with the load, and a lone request
    waits at most ``wait_s``. A batch that fails is run again one by one, so one bad request does
    not fail the others.

    Args:
        compute: Function from requests to their answers, in the same order.
        max_batch: Largest number of requests in a batch.
        wait_s: Longest wait of a batch's first request for others.
        max_queue: Number of waiting requests at which ``submit`` refuses.
        on_batch: Function that gets the size of each batch.
        waiting_for: What the requests wait for, for the message of a refusal.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int,
        wait_s: float,
        max_queue: int,
        on_batch: Callable[[int], None],
        waiting_for: str = "the towers",
    ) -> None:
        self._waiting_for = waiting_for
        self._compute = compute
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._max_queue = max_queue
        self._on_batch = on_batch
        self._queue: deque[_Waiting[T, R]] = deque()
        self._full = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, request: T) -> R:
        """Return the answer to one request.

        Raises:
            OverloadedError: If too many requests are waiting, or the batcher is closed.
            Exception: If ``compute`` raises it for this request alone.
        """
        if self._closed or len(self._queue) >= self._max_queue:
            raise OverloadedError(
                f"at most {self._max_queue} requests may wait for {self._waiting_for}; slow down"
            )
        waiting: _Waiting[T, R] = _Waiting(request, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if len(self._queue) >= self._max_batch:
            self._full.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await waiting.answer

    async def close(self) -> None:
        """Refuse new requests, and wait until all earlier ones are answered."""
        self._closed = True
        self._full.set()
        if self._runner is not None:
            await self._runner

    async def _run(self) -> None:
        while self._queue:
            await self._gather()
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]
            # Requests whose callers gave up are not computed.
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            if batch:
                self._on_batch(len(batch))
                await self._answer(batch)
        self._runner = None

    async def _gather(self) -> None:
        """Wait until a batch is full or the time is up."""
        if len(self._queue) >= self._max_batch or self._closed:
            return
        self._full.clear()
        try:
            await asyncio.wait_for(self._full.wait(), self._wait_s)
        except TimeoutError:
            return

    async def _answer(self, batch: list[_Waiting[T, R]]) -> None:
        try:
            answers = await self._compute([waiting.request for waiting in batch])
            if len(answers) != len(batch):
                raise RuntimeError(
                    f"{len(batch)} requests must get as many answers, got {len(answers)}"
                )
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0].answer, error)
                return
            for waiting in batch:
                await self._answer([waiting])
            return
        for waiting, answer in zip(batch, answers, strict=True):
            _settle(waiting.answer, answer)


def _settle(future: asyncio.Future[R], outcome: R | Exception) -> None:
    if future.done():  # the caller gave up
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
