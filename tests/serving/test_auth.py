import pytest

from recsys.errors import ConfigError
from serving.auth import bearer, check_binding, read_bearer, read_token
from serving.errors import UnauthenticatedError


def test_a_token_travels_in_the_metadata() -> None:
    assert read_bearer((("user-agent", "x"), bearer("sesame"))) == "sesame"


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "sesame"),),
        (("authorization", "Basic sesame"),),
        (("authorization", b"Bearer sesame"),),
    ],
    ids=["nothing", "no scheme", "another scheme", "bytes"],
)
def test_a_request_without_a_token_says_what_to_send(metadata: tuple[tuple[str, str]]) -> None:
    with pytest.raises(UnauthenticatedError, match='must have authorization: "Bearer <token>"'):
        read_bearer(metadata)


@pytest.mark.parametrize("token", ["", " \n", "se\nsame", "sésame", "se\x00same", "se\udcffsame"])
def test_what_a_header_cannot_carry_is_no_token(token: str) -> None:
    with pytest.raises(ValueError, match=r"must (not be empty|have printable ASCII)") as caught:
        read_token(token)
    assert "same" not in str(caught.value)


def test_blanks_around_a_token_do_not_count() -> None:
    with pytest.raises(ValueError, match="at most 4096 characters, got 5000"):
        read_token("x" * 5000)

    assert read_token(" open sesame\n") == "open sesame"
    assert read_bearer((("authorization", "Bearer open sesame "),)) == "open sesame"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_protection(host: str) -> None:
    check_binding(host, has_token=False, has_tls=False, allow_insecure=False)


@pytest.mark.parametrize(
    ("has_token", "has_tls", "missing"),
    [
        (False, False, r"token \(RECSYS_TOKEN\) and tls_certificate"),
        (True, False, "needs tls_certificate"),
        (False, True, r"needs token \(RECSYS_TOKEN\); set them"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "shop.example"])
def test_an_open_address_names_the_protection_it_lacks(
    host: str, has_token: bool, has_tls: bool, missing: str
) -> None:
    with pytest.raises(ConfigError, match=f"host {host} .*{missing}"):
        check_binding(host, has_token=has_token, has_tls=has_tls, allow_insecure=False)


def test_an_open_address_may_be_protected_or_permitted() -> None:
    check_binding("0.0.0.0", has_token=True, has_tls=True, allow_insecure=False)
    check_binding("0.0.0.0", has_token=False, has_tls=False, allow_insecure=True)
