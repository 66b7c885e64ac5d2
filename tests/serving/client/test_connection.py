from typing import Any

import pytest

from recsys.errors import InvalidArgumentError
from serving.client import AsyncClient, Client
from serving.client.connection import plan_connection

Kind = type[Client] | type[AsyncClient]


def plan(address: str, **changes: Any) -> Any:
    settings: dict[str, Any] = {"token": None, "certificate": None, "timeout_s": 1.0}
    return plan_connection(address, **(settings | changes))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "0.0.0.0:1"])
def test_loopback_is_called_without_a_proxy(address: str) -> None:
    assert ("grpc.enable_http_proxy", 0) in plan(address).options


def test_another_machine_is_called_as_grpc_is_set_up() -> None:
    assert "grpc.enable_http_proxy" not in dict(plan("shop.example:1").options)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_both_clients_refuse_an_address_without_a_port(kind: Kind) -> None:
    with pytest.raises(InvalidArgumentError, match="address must be host:port"):
        kind("localhost")
