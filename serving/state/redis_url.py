"""A client for the Redis that a URL names; how it answers is for the service to say."""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from recsys.errors import ConfigError

# Options that say who calls and how the server is reached. Every other option of redis-py would
# change replies, waits or retries, on which the service relies.
_OPTIONS = frozenset({"db", "username", "password", "client_name", "max_connections"})
_OF_TCP = _OPTIONS | {"health_check_interval", "socket_keepalive"}
_OF_CLUSTERS = _OF_TCP - {"db"}
_OF_TLS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_cert_reqs",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_min_version",
    }
)
_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_FROM_0, _FROM_1 = (r"\d{1,9}", "a whole number from 0"), (r"[1-9]\d{0,8}", "a whole number from 1")
_YES_OR_NO = (r"(?i:true|false|yes|no|1|0)", "true or false")
# What the values of options look like, and in words. redis-py takes others, and then replaces them
# by a default of its own, or fails at the first command.
_VALUES: Mapping[str, tuple[str, str]] = {
    "db": _FROM_0,
    "health_check_interval": _FROM_0,
    "max_connections": _FROM_1,
    "client_name": (r"[!-~]+", "printable ASCII characters without blanks"),
    "socket_keepalive": _YES_OR_NO,
    "ssl_check_hostname": _YES_OR_NO,
    "ssl_min_version": (r"77[12]", "771 (TLS 1.2) or 772 (TLS 1.3)"),
}
_KNOWN: Mapping[str, frozenset[str]] = {
    "redis": _OF_TCP,
    "rediss": _OF_TCP | _OF_TLS,
    "unix": _OPTIONS,
    "redis+cluster": _OF_CLUSTERS,
    "rediss+cluster": _OF_CLUSTERS | _OF_TLS,
}


def build_client(url: str, timeout_s: float) -> Any:
    """Return a client that has not connected yet.

    Args:
        url: URL that begins with redis://, rediss://, unix://, redis+cluster:// or
            rediss+cluster://.
        timeout_s: Longest wait for a command, and for a connection.

    Raises:
        ConfigError: If the URL cannot be read, or has an option or a value that it must not have.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # One immediate retry replaces a connection that died while idle; more would add waiting.
        "retry": Retry(NoBackoff(), 1),
        "protocol": 2,  # replies differ between protocols, and not every proxy speaks 3
    }
    try:
        parts = urlsplit(url)
        _check_place(parts)
        _check_options(parts)
        if parts.scheme.endswith("+cluster"):
            return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
        client: Any = redis.asyncio.Redis.from_url(url, **options)
        client.connection_pool.make_connection()  # connects to nothing, but reads the options
    except (ValueError, exceptions.RedisError, exceptions.RedisClusterException):
        # The cause is not shown: it may quote part of a password with a slash as the port.
        raise ConfigError(
            "redis must be 'embedded' or a URL such as redis://host:6379/0, got "
            f"{without_password(url)!r} (user, password and options not shown); percent-encode "
            "special characters of a password, and check scheme, host, port, database and options"
        ) from None
    return client


def without_password(url: str) -> str:
    """Return a URL without its password and options, even one that cannot be parsed."""
    scheme = next((f"{one}://" for one in _KNOWN if url.startswith(f"{one}://")), "")
    secret, _, host = url.removeprefix(scheme).rpartition("@")
    if "?" in secret:  # part of an option or password, whose end may follow
        return f"{scheme}..."
    return scheme + host.partition("?")[0]


def _check_place(parts: SplitResult) -> None:
    """Raise ValueError unless a URL has what redis-py would replace by a default of its own."""
    if parts.scheme not in _KNOWN or parts.fragment:
        raise ValueError("scheme")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("place")
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("database")
    if parts.port == 0:
        raise ValueError("port")


def _check_options(parts: SplitResult) -> None:
    """Raise unless the options of a URL are such as may be set there.

    Raises:
        ConfigError: If one may not, or has a value that it cannot have; the message has its name.
        ValueError: If what looks like an option may be part of a password.
    """
    known, options = _KNOWN[parts.scheme], parse_qs(parts.query, keep_blank_values=True)
    for name in options.keys() - known:
        if "@" in parts.query:
            raise ValueError("password")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use only {', '.join(sorted(known))}"
        raise ConfigError(
            f"redis must be a URL without the option {name!r}, which is unknown for "
            f"{parts.scheme}:// or for the service to set; {hint}"
        )
    for name, (pattern, wanted) in _VALUES.items():
        value = options[name][0] if name in options else None
        if value is not None and not re.fullmatch(pattern, value, re.ASCII):
            if "@" in parts.query:
                raise ValueError("password")
            raise ConfigError(
                f"redis must have {wanted} as the option {name} of its URL, got {value!r}; "
                "correct it or leave it out"
            )
    for name in _FILES & options.keys():
        if not os.access(options[name][0], os.R_OK):
            raise ConfigError(f"redis must name a readable file in the option {name} of its URL")
