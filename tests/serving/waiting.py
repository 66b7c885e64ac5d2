"""Wait for a condition, for as long as a working service needs at most."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 10.0
) -> None:
    """Return once the condition holds.

    Args:
        condition: Function, plain or async, that is called until it returns True.
        within_s: Time after which the condition counts as never true.

    Raises:
        TimeoutError: If it does not hold in time.
    """
    async with asyncio.timeout(within_s):
        while True:
            holds = condition()
            if await holds if inspect.isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.005)
