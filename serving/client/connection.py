"""How both clients connect: address, token, trust, and the options of the channel."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from serving.addresses import read_target
from serving.auth import bearer
from serving.keepalive import CLIENT_OPTIONS

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


class Connection(NamedTuple):
    """What a client needs to open its channel and to call.

    Args:
        target: Address of the service, as gRPC reads it.
        options: Options of the channel.
        credentials: Certificates to trust; None for a service without TLS.
        metadata: Metadata of each call.
        timeout_s: Longest wait for an answer, in seconds.
    """

    target: str
    options: tuple[tuple[str, Any], ...]
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    timeout_s: float


def plan_connection(
    address: str, *, token: str | None, certificate: Path | None, timeout_s: float
) -> Connection:
    """Return how to connect; arguments as those of the clients.

    Raises:
        InvalidArgumentError: If an argument cannot be used; the message has its name.
    """
    target = read_target(address)
    # A proxy is for other machines: what it calls 127.0.0.1 is itself.
    direct = (("grpc.enable_http_proxy", 0),) if target.is_here else ()
    return Connection(
        target=target.name,
        options=(*_OPTIONS, *direct),
        credentials=None if certificate is None else _read_trust(certificate),
        metadata=(bearer(token),) if token is not None else (),
        timeout_s=timeout_s,
    )


def _read_trust(certificate: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(certificate.read_bytes())
