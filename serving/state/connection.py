"""The connection to Redis: short timeouts, few kinds of errors, and whether Redis answers."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis import exceptions

from serving.errors import InternalError, OverloadedError, ServingError, UnavailableError
from serving.state.redis_url import build_client

logger = logging.getLogger(__name__)

# Fewer than the connections that redis-py opens; beyond those it raises as if Redis were away.
# Redis runs one command at a time, so more would only wait there.
MAX_COMMANDS = 64
# A command and its retry fail within two timeouts, or four if both connect first. After a longer
# wait for a turn it is known whether Redis is away or overloaded.
_TIMEOUTS_TO_WAIT = 5
# What Redis says when it refuses writes, and what helps. Errors of scripts and pipelines have these
# words inside a longer text, and redis-py takes the code off some of the others.
_REFUSALS = {
    "command not allowed when used memory": "Redis is full; raise redis_bytes, or the memory limit "
    "of your Redis",
    "MISCONF": "Redis cannot save to its disk and takes no writes; see its log, then call again",
    "NOREPLICAS": "Redis misses replicas and takes no writes; bring them back, then call again",
    "READONLY": "Redis is a replica by now and takes no writes; call again after the failover",
    "UNBLOCKED": "Redis became a replica meanwhile; call again after the failover",
}
# Errors of a server that is down, starting or failing over.
NOT_NOW = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ClusterDownError,
    exceptions.RedisClusterException,
    OSError,
)


class RedisConnection:
    """A client for one Redis or Redis Cluster that remembers whether it answered last time.

    While Redis is known to be away, commands are refused at once, until ``probe`` has reached it
    again. At most ``MAX_COMMANDS`` run at the same time, and others wait for their turn.

    Args:
        url: URL, as for ``build_client``.
        timeout_s: Longest wait for a command, and for a connection.
        on_asked: Function that gets the seconds of each use of ``translated``.

    Raises:
        ConfigError: If the URL cannot be read.
    """

    def __init__(
        self, url: str, *, timeout_s: float, on_asked: Callable[[float], None] | None = None
    ) -> None:
        self.client = build_client(url, timeout_s)
        self.available = True
        self._on_asked = on_asked
        self._turns = asyncio.Semaphore(MAX_COMMANDS)
        self._wait_s = _TIMEOUTS_TO_WAIT * timeout_s

    @asynccontextmanager
    async def translated(self) -> AsyncIterator[None]:
        """Run commands when it is their turn, and translate their errors.

        Raises:
            UnavailableError: If Redis does not answer, or refuses writes.
            OverloadedError: If too many commands are under way for too long.
            InternalError: If Redis refuses a command for another reason, which is a defect.
        """
        self._refuse_if_away()
        started = time.perf_counter()
        await self._take_turn()
        try:
            self._refuse_if_away()  # a command before this one may have found out
            with self._translating():
                yield
        finally:
            self._turns.release()
            if self._on_asked is not None:
                self._on_asked(time.perf_counter() - started)

    async def probe(self) -> bool:
        """Return whether Redis answers, and remember it."""
        try:
            await self.client.ping()
        except exceptions.MaxConnectionsError:  # busy: neither here nor away
            return self.available
        except NOT_NOW:
            self._note(False)
        except exceptions.ResponseError:  # a refusal is an answer; some releases refuse even PING
            self._note(True)
        else:
            self._note(True)
        return self.available

    async def close(self) -> None:
        """Close every connection."""
        await self.client.aclose()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except exceptions.MaxConnectionsError as error:  # a ConnectionError, but Redis is there
            raise OverloadedError("every connection to Redis is in use; slow down") from error
        except NOT_NOW as error:
            self._note(False)
            raise UnavailableError("Redis does not answer now; call again") from _quotable(error)
        except exceptions.RedisError as error:
            raise _translate(error) from _quotable(error)

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise OverloadedError(
                f"at most {MAX_COMMANDS} commands may be under way in Redis, and none ended within "
                f"{self._wait_s} s; slow down"
            ) from error

    def _refuse_if_away(self) -> None:
        if not self.available:
            raise UnavailableError("Redis does not answer; the service keeps trying, call again")

    def _note(self, available: bool) -> None:
        if available != self.available:
            self.available = available
            logger.warning("Redis %s", "answers again" if available else "does not answer")


def explain_refusal(error: Exception) -> str | None:
    """Return why Redis takes no writes now and what helps; None for an error of another kind."""
    text = f"READONLY {error}" if isinstance(error, exceptions.ReadOnlyError) else str(error)
    return next((said for refusal, said in _REFUSALS.items() if refusal in text), None)


def _translate(error: exceptions.RedisError) -> ServingError:
    """Return the error to raise for an error reply of Redis."""
    text = str(error)
    refusal = explain_refusal(error)
    if refusal is not None:
        return UnavailableError(refusal)
    # A pipeline's error quotes the command before what the server said, and Redis 6 says where in
    # a script it happened; then comes a code.
    said = text.rpartition("caused error: ")[2]
    code = re.match(r"[('\"]*(?:Error running script .*?: @user_script:\d+: )?([A-Z]+) ", said)
    named = f"{type(error).__name__}{f' {code[1]}' if code else ''}"
    advice = "report this as a defect"
    if code is not None and code[1] == "WRONGTYPE":
        advice = (
            "a key of the service has a value that is not ours: delete it, or choose another "
            "namespace (RECSYS_NAMESPACE)"
        )
    return InternalError(f"Redis refused a command of the service: {named}; {advice}")


def _quotable(error: Exception) -> Exception | None:
    """Return the error as a cause to log, None if it may quote a command and so a user id."""
    return None if isinstance(error, exceptions.ResponseError | exceptions.DataError) else error
