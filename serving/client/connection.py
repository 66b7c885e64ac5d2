"""How both clients connect: address, token, trust, and the options of the channel."""

import json
import os
import ssl
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import grpc

from recsys.errors import FileAccessError, InvalidArgumentError
from serving.addresses import read_target
from serving.auth import bearer, read_token
from serving.errors import ClosedError
from serving.keepalive import CLIENT_OPTIONS

MAX_TIMEOUT_S = 86_400
# Every method may be repeated without harm, so a lost connection is no reason to give up at once.
_RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "recsys.v1.Recommender"}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
_OPTIONS = (
    ("grpc.service_config", _RETRIES),
    ("grpc.max_receive_message_length", -1),  # it is our own service that answers
    *CLIENT_OPTIONS,
)


@dataclass
class Connection:
    """What a client needs to open its channel and to call.

    Args:
        target: Address of the service, as gRPC reads it.
        options: Options of the channel.
        credentials: Certificates to trust, and the client's own if it has one; None for a service
            without TLS.
        metadata: Metadata of each call.
        timeout_s: Longest wait for an answer, in seconds.
        is_closed: Whether the client was closed.
        process: Process that made the client.
    """

    target: str
    options: tuple[tuple[str, Any], ...]
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    timeout_s: float
    is_closed: bool = False
    process: int = field(default_factory=os.getpid)

    def check_open(self) -> None:
        """Raise unless calls can be made.

        Raises:
            ClosedError: If the client was closed, or came into this process by a fork, in which
                gRPC's threads are missing and calls would hang.
        """
        if self.is_closed:
            raise ClosedError("the client is closed; make a new one, or close it later")
        if self.process != os.getpid():
            raise ClosedError(
                f"the client was made in process {self.process} and cannot be used in process "
                f"{os.getpid()}, which was forked from it; make one in each process"
            )


def plan_connection(
    address: str,
    *,
    token: str | None,
    certificate: str | Path | None,
    identity: str | Path | None,
    timeout_s: float,
) -> Connection:
    """Return how to connect; arguments as those of the clients.

    Raises:
        InvalidArgumentError: If an argument cannot be used; the message has its name.
        FileAccessError: If a file cannot be read.
    """
    target = read_target(address)
    is_number = isinstance(timeout_s, Real) and not isinstance(timeout_s, bool)
    if not (is_number and 0 < timeout_s <= MAX_TIMEOUT_S):  # false for NaN
        raise InvalidArgumentError(
            f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S} (a day), got {timeout_s!r}"
        )
    # A proxy is for other machines: what it calls 127.0.0.1 is itself.
    direct = (("grpc.enable_http_proxy", 0),) if target.is_here else ()
    return Connection(
        target=target.name,
        options=(*_OPTIONS, *direct),
        credentials=_read_credentials(certificate, identity),
        metadata=() if token is None else (_read_bearer(token),),
        timeout_s=timeout_s,
    )


def open_channel(to: Connection) -> grpc.Channel:
    """Return the channel of a client that waits."""
    if to.credentials is None:
        return grpc.insecure_channel(to.target, options=to.options)
    return grpc.secure_channel(to.target, to.credentials, options=to.options)


def _read_bearer(token: str) -> tuple[str, str]:
    if not isinstance(token, str):
        raise InvalidArgumentError(f"token must be text, got one of type {type(token).__name__}")
    try:
        return bearer(read_token(token))
    except ValueError as error:
        raise InvalidArgumentError(f"token {error}") from error


def _read_credentials(
    certificate: str | Path | None, identity: str | Path | None
) -> grpc.ChannelCredentials | None:
    if certificate is None:
        if identity is not None:
            raise InvalidArgumentError("identity needs certificate, the one to trust")
        return None
    path, trusted = _read_file("certificate", certificate)
    try:
        # gRPC would find out when it connects, and report a service that cannot be reached.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=trusted.decode())
    except (ssl.SSLError, ValueError) as error:
        raise InvalidArgumentError(
            f"certificate {path} must be a PEM file with the certificates to trust: {error}"
        ) from error
    if identity is None:
        return grpc.ssl_channel_credentials(trusted)
    path, own = _read_file("identity", identity)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password="")
    except (ssl.SSLError, ValueError) as error:
        raise InvalidArgumentError(
            f"identity {path} must be a PEM file with a certificate and its private key without a "
            f"password: {error}"
        ) from error
    return grpc.ssl_channel_credentials(trusted, own, own)


def _read_file(name: str, path: str | Path) -> tuple[Path, bytes]:
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgumentError(
            f"{name} must be the path of a PEM file, got {type(path).__name__}"
        )
    path = Path(os.path.expanduser(path))
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise FileAccessError(f"{name} {path} cannot be read: {error.strerror}") from error
