"""Whether a port can be listened on, found out before anything else starts."""

import errno
import os
import socket

from recsys.errors import ConfigError
from serving.addresses import join

_REASONS = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another port (0 takes a "
    "free one)",
    errno.EACCES: "this user may not; choose a port from 1024 on (0 takes a free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one that it has, or 0.0.0.0 or "
    ":: for all",
    errno.EAFNOSUPPORT: "this machine has no such addresses; choose another host",
}


def check_free(name: str, host: str, port: int) -> None:
    """Raise if a port cannot be listened on; gRPC would only say that it could not bind.

    Args:
        name: Setting that has the port, for the error.
        host: IP address, or a name that is looked up.
        port: Port; 0 stands for any free one.

    Raises:
        ConfigError: If the host does not resolve, or the port is taken or forbidden.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"host must be an address of this machine, but {host} does not resolve ({error}); "
            "choose 127.0.0.1 for this machine only, or 0.0.0.0 for all its addresses"
        ) from error
    family, kind, protocol, _, place = found[0]
    try:
        with socket.socket(family, kind, protocol) as probe:
            # As gRPC does it: connections that ended a moment ago do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, os.strerror(error.errno or 0))
        raise ConfigError(f"{name} {join(host, port)} cannot be listened on: {reason}") from error
