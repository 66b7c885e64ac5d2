import socket

import pytest

from recsys.errors import ConfigError
from serving.rpc.listening import check_free


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::"])
def test_a_free_port_is_no_error(host: str) -> None:
    check_free("address", host, 0)


def test_a_taken_port_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = rf"address 127.0.0.1:{port} cannot be listened on: another program listens there"
        with pytest.raises(ConfigError, match=wanted):
            check_free("address", "127.0.0.1", port)


def test_an_address_of_another_machine_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match=r"\[2001:db8::1\]:0 .*|192.0.2.1:0 .*no such address"):
        check_free("address", "192.0.2.1", 0)


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 64])
def test_a_name_that_does_not_resolve_is_an_error_that_says_so(host: str) -> None:
    with pytest.raises(ConfigError, match=f"but {host} does not resolve"):
        check_free("address", host, 0)
