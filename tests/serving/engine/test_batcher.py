import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from serving.engine.batcher import Batcher
from serving.errors import OverloadedError
from tests.serving.waiting import eventually


class Squares:
    """A computation that notes its batches and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.free.wait()
        if -1 in numbers:
            raise ValueError("-1 has no square here")
        return [number**2 for number in numbers]


@asynccontextmanager
async def open_batcher(
    compute: Squares, *, max_batch: int = 4, wait_s: float = 0.01, max_queue: int = 100
) -> AsyncIterator[Batcher[int, int]]:
    batcher: Batcher[int, int] = Batcher(
        compute,
        max_batch=max_batch,
        wait_s=wait_s,
        max_queue=max_queue,
        on_batch=lambda size: None,
    )
    yield batcher
    compute.free.set()
    await batcher.close()


async def test_each_request_gets_its_own_answer() -> None:
    compute = Squares()
    async with open_batcher(compute) as batcher:
        answers = await asyncio.gather(*(batcher.submit(number) for number in range(10)))

    assert answers == [number**2 for number in range(10)]
    assert [number for batch in compute.batches for number in batch] == list(range(10))


async def test_requests_that_arrive_together_share_batches_up_to_the_limit() -> None:
    compute = Squares()
    async with open_batcher(compute, max_batch=4) as batcher:
        await asyncio.gather(*(batcher.submit(number) for number in range(10)))

    assert [len(batch) for batch in compute.batches] == [4, 4, 2]


async def test_a_lone_request_is_answered_after_the_wait() -> None:
    async with open_batcher(Squares(), wait_s=0.01) as batcher, asyncio.timeout(1):
        assert await batcher.submit(3) == 9


async def test_a_full_batch_does_not_wait() -> None:
    async with open_batcher(Squares(), max_batch=2, wait_s=60) as batcher, asyncio.timeout(1):
        assert await asyncio.gather(batcher.submit(1), batcher.submit(2)) == [1, 4]


async def test_the_next_batch_fills_while_one_runs() -> None:
    compute = Squares()
    compute.free.clear()
    async with open_batcher(compute, wait_s=0) as batcher:
        first = asyncio.create_task(batcher.submit(1))
        await eventually(lambda: compute.batches == [[1]])
        others = [asyncio.create_task(batcher.submit(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        compute.free.set()
        await asyncio.gather(first, *others)

    assert compute.batches == [[1], [2, 3, 4]]


async def test_a_request_that_fails_does_not_fail_its_neighbours() -> None:
    async with open_batcher(Squares()) as batcher:
        answers = await asyncio.gather(
            *(batcher.submit(number) for number in (1, -1, 2)), return_exceptions=True
        )

    assert answers[0] == 1
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 4


async def test_a_computation_that_loses_answers_is_an_error() -> None:
    async def forgetful(numbers: Sequence[int]) -> list[int]:
        return []

    batcher: Batcher[int, int] = Batcher(
        forgetful, max_batch=2, wait_s=0, max_queue=9, on_batch=lambda size: None
    )
    with pytest.raises(RuntimeError, match="1 requests must get as many answers, got 0"):
        await batcher.submit(1)


async def test_a_full_queue_refuses() -> None:
    compute = Squares()
    compute.free.clear()
    async with open_batcher(compute, max_batch=1, max_queue=2) as batcher:
        running = asyncio.create_task(batcher.submit(0))
        await eventually(lambda: compute.batches == [[0]])
        waiting = [asyncio.create_task(batcher.submit(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="at most 2 requests may wait for the towers"):
            await batcher.submit(3)
        compute.free.set()
        assert await asyncio.gather(running, *waiting) == [0, 1, 4]


async def test_a_request_whose_caller_gave_up_is_not_computed() -> None:
    compute = Squares()
    compute.free.clear()
    async with open_batcher(compute, max_batch=1) as batcher:
        running = asyncio.create_task(batcher.submit(1))
        await eventually(lambda: compute.batches == [[1]])
        gone = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        last = asyncio.create_task(batcher.submit(3))
        await asyncio.sleep(0)
        compute.free.set()
        await asyncio.gather(running, last)

    assert compute.batches == [[1], [3]]


async def test_closing_answers_what_is_in_and_refuses_what_comes() -> None:
    async with open_batcher(Squares(), wait_s=60) as batcher:
        last = asyncio.create_task(batcher.submit(5))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await batcher.close()
        assert await last == 25
        with pytest.raises(OverloadedError):
            await batcher.submit(6)
