import asyncio
import threading
import time

import pytest

from serving.engine.compute import ComputeThread
from serving.errors import OverloadedError


async def test_all_calls_run_on_one_thread_that_is_not_the_loop() -> None:
    compute = ComputeThread(max_queue=10)
    names = await asyncio.gather(*(compute.run(threading.get_ident) for _ in range(5)))
    compute.close()

    assert len(set(names)) == 1
    assert names[0] != threading.get_ident()


async def test_what_the_function_raises_reaches_the_caller() -> None:
    compute = ComputeThread(max_queue=10)
    with pytest.raises(ZeroDivisionError):
        await compute.run(lambda: 1 // 0)
    compute.close()


async def test_a_full_queue_refuses_callers_but_not_the_services_own_work() -> None:
    compute, hold = ComputeThread(max_queue=1), threading.Event()
    running = asyncio.create_task(compute.run(hold.wait))
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError, match="at most 1 requests may wait"):
        await compute.run(int)
    own = asyncio.create_task(compute.run_always(int, "7"))
    await asyncio.sleep(0)
    hold.set()

    assert await own == 7
    assert await running
    assert await compute.run(int, "8") == 8  # there is room again
    compute.close()


async def test_the_function_of_a_caller_that_left_does_not_run() -> None:
    compute, hold, ran = ComputeThread(max_queue=10), threading.Event(), threading.Event()
    running = asyncio.create_task(compute.run(hold.wait))
    await asyncio.sleep(0)
    gone = asyncio.create_task(compute.run(ran.set))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    hold.set()
    await running
    compute.close()

    assert not ran.is_set()


async def test_how_long_calls_wait_and_run_is_counted_also_when_they_fail() -> None:
    counted: list[tuple[float, float]] = []
    thread = ComputeThread(max_queue=9, on_run=lambda *seconds: counted.append(seconds))
    try:
        first = asyncio.create_task(thread.run_always(time.sleep, 0.05))
        await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            await thread.run_always(divmod, 1, 0)
        await first
    finally:
        thread.close()

    (waited, ran), (waited_then, _) = counted
    assert ran >= 0.05
    assert waited_then > waited
