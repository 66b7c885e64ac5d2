import socket
from typing import Any

import pytest

from recsys.errors import ConfigError, InvalidArgumentError
from serving.addresses import check_free, is_loopback, join, read_host, read_target


@pytest.mark.parametrize(
    ("text", "host", "address"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:5"),
        ("::1", "::1", "[::1]:5"),
        ("[::1]", "::1", "[::1]:5"),
        ("::", "::", "[::]:5"),
        ("fe80::1%eth0", "fe80::1%eth0", "[fe80::1%eth0]:5"),
        ("localhost", "localhost", "localhost:5"),
        ("shop-1.example", "shop-1.example", "shop-1.example:5"),
    ],
)
def test_a_host_is_a_name_or_an_address_and_gets_brackets_where_grpc_wants_them(
    text: str, host: str, address: str
) -> None:
    assert read_host(text) == host
    assert join(host, 5) == address


@pytest.mark.parametrize(
    ("text", "host"),
    [("0.0.0.0:8080", "0.0.0.0"), ("[::1]:8080", "::1"), ("localhost:8080", "localhost")],
)
def test_a_port_inside_a_host_is_refused_with_the_two_apart(text: str, host: str) -> None:
    with pytest.raises(ValueError, match=rf"without a port; use host {host} and port 8080"):
        read_host(text)


@pytest.mark.parametrize(
    "text", ["", "http://shop", "unix:/run/x.sock", "a b", "[shop]", "1::2::3"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an IP address or a host name"):
        read_host(text)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.255.0.2", "::1", "::1%lo", "::ffff:127.0.0.1", "localhost"]
)
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "::ffff:192.168.1.5", "fe80::1%eth0", "shop.example"]
)
def test_what_other_machines_may_reach_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_a_localhost_that_is_another_machine_is_not_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere(*_: Any, **__: Any) -> list[Any]:
        return [(None, None, None, "", (one, 0)) for one in ("127.0.0.1", "192.0.2.1")]

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)

    assert not is_loopback("localhost")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:50051",
        "localhost:1",
        " [::1]:50051\n",
        "0.0.0.0:50051",
        "[::]:50051",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "ipv6:[::1]:50051",
        "unix:/run/recsys.sock",
    ],
)
def test_a_target_on_this_machine(text: str) -> None:
    assert read_target(text) == (text.strip(), True)


@pytest.mark.parametrize(
    "text",
    [
        "shop.example:50051",
        "192.0.2.1:50051",
        "dns:50051",
        "dns:///shop.example:50051",
        "dns://192.0.2.53/shop.example:50051",
        "ipv4:127.0.0.1:1,192.0.2.1:1",
        "xds:///recsys",
    ],
)
def test_a_target_elsewhere(text: str) -> None:
    assert read_target(text) == (text, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "http://localhost:50051",
        "::1:50051",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "local host:1",
        "localhost:port",
        "dns:///localhost",
        "unix:",
    ],
)
def test_an_address_of_another_form_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"address must be host:port, such as .*got '"):
        read_target(text)


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
