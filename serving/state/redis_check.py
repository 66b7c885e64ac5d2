"""Whether a Redis can hold what the service keeps, found out when the service starts."""

import logging
from collections.abc import Sequence
from typing import Any

from redis import exceptions

from serving.errors import StateError
from serving.state.connection import NOT_NOW, RedisConnection, explain_refusal
from serving.state.event_counts import count_keys
from serving.state.event_log import log_keys

logger = logging.getLogger(__name__)

Command = tuple[str | int, ...]


async def check_redis(
    connection: RedisConnection, *, shown: str, namespace: str, with_writes: bool = True
) -> None:
    """Raise unless a Redis answers, and has and permits all that the service needs.

    A Redis that takes no writes for now, or that may evict what it should keep, is logged: to start
    is to read.

    Args:
        connection: Connection to Redis.
        shown: Its URL without the password, for errors.
        namespace: First part of the keys.
        with_writes: Whether writes are tried, too. An embedded Redis whose disk is full ends at the
            first one.

    Raises:
        StateError: If the service could not work with it; the message says why.
    """
    try:
        tried = reads(namespace) + (writes(namespace) if with_writes else [])
        await _try_commands(connection.client, tried, shown, namespace)
        await _check_eviction(connection.client, shown)
    except (*NOT_NOW, exceptions.ResponseError) as error:
        raise StateError(f"redis {shown} must answer, but {_explain(error)}") from error


def reads(namespace: str) -> list[Command]:
    """Return the commands by which the service reads, on its own keys."""
    number, records, pictures, stream, epoch = (
        f"{{{namespace}:catalogue}}:{name}"
        for name in ("number", "records", "pictures", "stream", "epoch")
    )
    (log, state, seen, _), (counting, *_) = log_keys(namespace), count_keys(namespace)
    return [
        ("GET", number),
        ("GET", epoch),
        ("MGET", number, epoch),
        ("HGET", pictures, ""),
        ("HMGET", records, ""),
        ("HSCAN", records, 0, "COUNT", 1),
        ("TIME",),
        ("XREVRANGE", stream, "+", "-", "COUNT", 1),
        ("XREAD", "COUNT", 1, "STREAMS", stream, "$"),
        ("ZRANGE", f"{namespace}:history:", 0, -1),  # no user has the empty id
        ("XLEN", log),
        ("XRANGE", log, "-", "+", "COUNT", 1),
        ("HGETALL", counting),
        ("HLEN", records),
        ("HKEYS", f"{records}:"),
        ("HSTRLEN", records, ""),
        ("ZSCORE", f"{counting}:", ""),
        ("ZREVRANGE", f"{counting}:", 0, 0),
        ("HGET", state, ""),
        ("SISMEMBER", seen, ""),
        ("SCARD", seen),
        ("EVAL", "return 1", 1, epoch),
        ("GETEX", f"{namespace}:embedding:", "EX", 60),  # of no version, so there is no such key
    ]


def writes(namespace: str) -> list[Command]:
    """Return the commands by which the service writes; what they write is gone within a minute."""
    spare, history = f"{{{namespace}:catalogue}}:start-check-", f"{namespace}:history:"
    events = f"{{{namespace}:events}}:start-check-"
    return [
        ("SET", f"{spare}text", 1, "EX", 60),
        ("INCR", f"{spare}text"),
        ("HSET", f"{spare}hash", "field", 1),
        ("HDEL", f"{spare}hash", "field"),
        ("XADD", f"{spare}stream", "MAXLEN", "~", 1, "*", "field", 1),
        ("EXPIRE", f"{spare}stream", 60),
        ("XADD", f"{events}stream", "*", "field", 1),
        ("XTRIM", f"{events}stream", "MAXLEN", "~", 1),
        ("EXPIRE", f"{events}stream", 60),
        ("HINCRBY", f"{events}hash", "field", 1),
        ("HSETNX", f"{events}hash", "other", 1),
        ("EXPIRE", f"{events}hash", 60),
        ("SADD", f"{events}set", 1),
        ("RENAME", f"{events}set", f"{events}set-before"),
        ("UNLINK", f"{events}set-before"),
        ("ZADD", history, 1, "event"),
        ("ZREMRANGEBYRANK", history, 0, -1),
        ("SET", f"{namespace}:embedding:start-check", 1, "EX", 60),
    ]


async def _try_commands(
    client: Any, commands: Sequence[Command], shown: str, namespace: str
) -> None:
    for command, *arguments in commands:
        key = next((one for one in arguments if namespace in str(one)), f"{namespace}:*")
        try:
            await client.execute_command(command, *arguments)
        except exceptions.NoPermissionError as error:
            raise StateError(
                f"redis {shown} must permit its user {command} on keys like {key}: {error}; grant "
                f"it the commands {', '.join(sorted({str(one[0]) for one in commands}))} and "
                f"the keys {namespace}:* and {{{namespace}:*"
            ) from error
        except exceptions.ResponseError as error:
            text = str(error)
            refusal = explain_refusal(error)
            if refusal is not None:
                logger.warning("redis %s takes no writes for now: %s", shown, refusal)
                return
            if "WRONGTYPE" in text:
                raise StateError(
                    f"redis {shown} has the data of another program under the key {key}; set "
                    f"another namespace (RECSYS_NAMESPACE), got {namespace!r}"
                ) from error
            if "unknown command" in text:
                raise StateError(
                    f"redis {shown} must be Redis 6.2 or newer, but does not know {command}"
                ) from error
            raise


async def _check_eviction(client: Any, shown: str) -> None:
    """Log a policy that would keep cached embeddings and drop or refuse the rest."""
    try:
        memory = await client.info("memory")
    except exceptions.NoPermissionError:  # the service runs without it
        return
    policy = str(memory.get("maxmemory_policy", ""))
    if memory.get("maxmemory") and not policy.startswith("volatile-"):
        harm = "will refuse writes" if policy == "noeviction" else "may drop live items and events"
        logger.warning(
            "redis %s has the maxmemory-policy %s, so it %s once it is full of cached embeddings; "
            "set volatile-lru",
            shown,
            policy,
            harm,
        )


def _explain(error: BaseException) -> str:
    # redis-py wraps what the server said while connecting.
    while isinstance(error.__cause__, exceptions.RedisError):
        error = error.__cause__
    # What Redis says of an unknown command quotes its arguments: of AUTH, the password.
    said = str(error).partition(", with args")[0].rstrip(".")
    match error:
        case exceptions.AuthenticationError():
            return (
                f"wants another user or password ({said}); put them into the URL, as in "
                "redis://USER:PASSWORD@host:6379"
            )
        case exceptions.BusyLoadingError():
            return "it is loading its data; start again when it is done"
        case exceptions.MovedError():
            return "it is a node of a cluster; begin the URL with redis+cluster://"
        case exceptions.ResponseError():
            return f"refuses: {said}"
    return f"does not: {said}; check URL and server"
