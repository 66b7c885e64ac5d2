"""Addresses: of a host to listen on, and of a service to call."""

import errno
import ipaddress
import os
import re
import socket
from typing import NamedTuple

from recsys.errors import ConfigError, InvalidArgumentError

_NAME = re.compile(r"[\w.-]+", re.ASCII)
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ip>[^\[\]]+)\]|(?P<name>[\w.-]+)):(?P<port>\d{1,5})", re.ASCII
)
# gRPC's own ways to name a target. The part after the colon is an address, a list, or a path.
_ADDRESSES = ("dns", "ipv4", "ipv6")
_SOCKETS = ("unix", "unix-abstract", "vsock")


_REASONS = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another port (0 takes a "
    "free one)",
    errno.EACCES: "this user may not; choose a port from 1024 on (0 takes a free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one that it has, or 0.0.0.0 or "
    ":: for all",
    errno.EAFNOSUPPORT: "this machine has no such addresses; choose another host",
}


class Target(NamedTuple):
    """A service to call.

    Args:
        name: The address, as gRPC reads it.
        is_here: Whether only this machine can be meant.
    """

    name: str
    is_here: bool


def read_host(text: str) -> str:
    """Return a host to listen on: a name, or an IP address without brackets.

    Raises:
        ValueError: If it is neither, or has a port.
    """
    bare = text.removeprefix("[").removesuffix("]")
    if _ip_address(bare) is not None or _NAME.fullmatch(text):
        return bare
    host, _, port = text.rpartition(":")
    if (port.isdigit() and _NAME.fullmatch(host)) or _ip_address(host.strip("[]")):
        raise ValueError(f"must be without a port; use host {host.strip('[]')} and port {port}")
    raise ValueError("must be an IP address or a host name, such as 127.0.0.1, ::1 or localhost")


def join(host: str, port: int) -> str:
    """Return host:port, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_target(text: str) -> Target:
    """Return the service that an address means.

    Args:
        text: Address as host:port, or a name of gRPC's such as dns:///host:port or unix:/path.

    Raises:
        InvalidArgumentError: If it is neither.
    """
    name = text.strip() if isinstance(text, str) else ""
    scheme, _, rest = name.partition(":")
    if scheme in _SOCKETS and rest:
        return Target(name, is_here=True)
    if scheme == "xds" and rest:
        return Target(name, is_here=False)
    is_address = scheme in _ADDRESSES and not rest.isdigit()
    places = rest.rpartition("/")[2].split(",") if is_address else [name]
    found = [_HOST_AND_PORT.fullmatch(place) for place in places]
    if not all(one and 1 <= int(one["port"]) <= 65535 for one in found):
        raise InvalidArgumentError(
            "address must be host:port, such as 127.0.0.1:50051 or [::1]:50051, or a name of "
            f"gRPC's, such as dns:///host:50051 or unix:/path, got {text!r}"
        )
    return Target(name, all(_is_here(one["ip"] or one["name"]) for one in found if one))


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


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached from this machine only.

    Args:
        host: IP address or name. ``localhost`` is looked up, as a machine may give it another
            meaning. Any other name may mean anything.
    """
    address = _ip_address(host)
    if address is not None:
        return address.is_loopback
    if host.lower() != "localhost":
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [_ip_address(str(place[0])) for *_, place in found]
    return all(one is not None and one.is_loopback for one in addresses)


def _is_here(host: str) -> bool:
    """Return whether calls to a host stay on this machine, as those to 0.0.0.0 do, too."""
    address = _ip_address(host)
    return is_loopback(host) or (address is not None and address.is_unspecified)


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a text is, the IPv4 address where one is mapped; else None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
