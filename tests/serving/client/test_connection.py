"""What both clients refuse before they connect, and after they were closed."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import FileAccessError, InvalidArgumentError
from serving.client import AsyncClient, Client
from serving.client.connection import plan_connection
from serving.errors import ClosedError
from serving.keepalive import CLIENT_OPTIONS, SERVER_OPTIONS

Kind = type[Client] | type[AsyncClient]
TLS = Path(__file__).parents[1] / "rpc" / "tls"
both = pytest.mark.parametrize("kind", [Client, AsyncClient])


def plan(address: str = "127.0.0.1:1", **changes: Any) -> Any:
    nothing: dict[str, Any] = dict.fromkeys(("token", "certificate", "identity"))
    return plan_connection(address, **(nothing | {"timeout_s": 1.0} | changes))


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield an address where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "0.0.0.0:1"])
def test_loopback_is_called_without_a_proxy(address: str) -> None:
    assert ("grpc.enable_http_proxy", 0) in plan(address).options


def test_another_machine_is_called_as_grpc_is_set_up() -> None:
    assert "grpc.enable_http_proxy" not in dict(plan("shop.example:1").options)


def test_clients_ping_no_more_often_than_the_service_allows() -> None:
    allowed = dict(SERVER_OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"]

    assert dict(CLIENT_OPTIONS)["grpc.keepalive_time_ms"] > allowed
    assert set(CLIENT_OPTIONS) <= set(plan().options)


@both
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"address": "localhost"}, "address must be host:port"),
        ({"timeout_s": 0}, "timeout_s must be above 0 and at most 86400 .*, got 0"),
        ({"timeout_s": -1.0}, "timeout_s must be"),
        ({"timeout_s": float("inf")}, "timeout_s must be .*got inf"),
        ({"timeout_s": float("nan")}, "timeout_s must be .*got nan"),
        ({"timeout_s": "5"}, "timeout_s must be .*got '5'"),
        ({"timeout_s": True}, "timeout_s must be .*got True"),
        ({"timeout_s": None}, "timeout_s must be .*got None"),
        ({"address": 50051}, "address must be host:port.*got 50051"),
        ({"token": 5}, "token must be text, got one of type int"),
        ({"certificate": b"-----BEGIN"}, "certificate must be the path of a PEM file, got bytes"),
        ({"token": ""}, "token must not be empty"),
        ({"token": "se\nsame"}, "token must have printable ASCII characters only"),
        ({"token": "sésame"}, "token must have printable ASCII characters only"),
        ({"certificate": TLS / "key.pem"}, r"certificate .*key.pem must be a PEM file"),
    ],
)
def test_an_argument_that_cannot_work_is_refused_by_name(
    kind: Kind, settings: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=wanted):
        kind(**settings)


@both
def test_a_certificate_that_is_not_there_is_named(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"certificate .*x.pem cannot be read: No such file"):
        kind(certificate=tmp_path / "x.pem")


def test_blanks_around_a_token_do_not_count() -> None:
    assert plan(token="sesame\n").metadata == (("authorization", "Bearer sesame"),)


def test_a_closed_client_says_so(silent: str) -> None:
    client = Client(silent)
    client.close()
    with pytest.raises(ClosedError, match="the client is closed; make a new one"):
        client.search("mug")


async def test_a_closed_asyncio_client_says_so(silent: str) -> None:
    client = AsyncClient(silent)
    await client.close()
    with pytest.raises(ClosedError, match="the client is closed; make a new one"):
        await client.search("mug")


def test_closing_a_client_ends_its_calls(silent: str) -> None:
    client = Client(silent)
    closing = threading.Timer(0.1, client.close)
    closing.start()
    with pytest.raises(ClosedError):
        client.search("mug")
    closing.join()


async def test_closing_an_asyncio_client_ends_its_calls_but_not_their_tasks(silent: str) -> None:
    client = AsyncClient(silent)
    calling = asyncio.create_task(client.search("mug"))
    await asyncio.sleep(0.1)
    await client.close()
    with pytest.raises(ClosedError):
        await calling


async def test_a_task_that_is_cancelled_is_cancelled(silent: str) -> None:
    async with AsyncClient(silent) as client:
        calling = asyncio.create_task(client.search("mug"))
        await asyncio.sleep(0.1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling


FORK = """
import os, sys
from serving.client import Client
from serving.errors import ClosedError

client = Client(sys.argv[1])
if os.fork():
    os.wait()
    client.close()
else:
    try:
        client.search("mug")
    except ClosedError as error:
        print(os.getppid(), error, flush=True)
    os._exit(0)
"""


def test_a_client_of_the_process_before_a_fork_says_so(silent: str) -> None:
    # In a process of its own: a fork of one with many threads may find a lock taken for ever.
    command = [sys.executable, "-c", FORK, silent]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    parent, message = printed.split(" ", 1)
    assert f"was made in process {parent} and cannot be used in process" in message


def test_an_identity_is_a_certificate_with_its_key(tmp_path: Path) -> None:
    trusted = TLS / "certificate.pem"
    with pytest.raises(InvalidArgumentError, match="identity needs certificate"):
        plan(identity=TLS / "key.pem")
    with pytest.raises(FileAccessError, match=r"identity .*x.pem cannot be read"):
        plan(certificate=trusted, identity=tmp_path / "x.pem")
    with pytest.raises(InvalidArgumentError, match="identity must be the path of a PEM file"):
        plan(certificate=trusted, identity=7)
    for names in (("certificate",), ("certificate", "other_key"), ("certificate", "locked_key")):
        parts = [(TLS / f"{name}.pem").read_bytes() for name in names]
        (tmp_path / "own.pem").write_bytes(b"".join(parts))
        with pytest.raises(InvalidArgumentError, match="a certificate and its private key without"):
            plan(certificate=trusted, identity=tmp_path / "own.pem")
