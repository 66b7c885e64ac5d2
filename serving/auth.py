"""Tokens as they travel, and the check that an open address is protected."""

from collections.abc import Iterable

from recsys.errors import ConfigError
from serving.addresses import is_loopback
from serving.errors import UnauthenticatedError

HEADER = "authorization"
_SCHEME = "Bearer "
MAX_TOKEN_CHARACTERS = 4096  # gRPC takes 8 KiB of headers


def read_bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the token in the metadata of a call.

    Raises:
        UnauthenticatedError: If the metadata has no token.
    """
    sent = dict(metadata).get(HEADER)
    if not isinstance(sent, str) or not sent.startswith(_SCHEME):
        raise UnauthenticatedError(f'metadata must have {HEADER}: "{_SCHEME}<token>", got none')
    return sent.removeprefix(_SCHEME).strip()


def read_token(text: str) -> str:
    """Return a token without the blanks around it, which HTTP would not carry either.

    Raises:
        ValueError: If it is empty or too long, or has characters that a header cannot carry; the
            message does not show it.
    """
    token = text.strip()
    if not token:
        raise ValueError("must not be empty or blank; set a token, or leave it unset for none")
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise ValueError(f"must have at most {MAX_TOKEN_CHARACTERS} characters, got {len(token)}")
    wrong = next((at for at, one in enumerate(token) if not " " <= one <= "~"), None)
    if wrong is not None:
        raise ValueError(
            f"must have printable ASCII characters only, but character {wrong + 1} is not; choose "
            "another, for example with: openssl rand -hex 32"
        )
    return token


def bearer(token: str) -> tuple[str, str]:
    """Return the metadata entry that carries a token."""
    return HEADER, f"{_SCHEME}{token}"


def check_binding(host: str, *, has_token: bool, has_tls: bool, allow_insecure: bool) -> None:
    """Raise if other machines could call without a token, or read the traffic.

    Args:
        host: Address to listen on.
        has_token: Whether each call must have a token.
        has_tls: Whether connections are encrypted.
        allow_insecure: Whether the operator declared the network trusted.

    Raises:
        ConfigError: If the address is not loopback and the protection is not complete.
    """
    if is_loopback(host) or allow_insecure or (has_token and has_tls):
        return
    missing = [
        name
        for name, there in (
            ("token (RECSYS_TOKEN)", has_token),
            ("tls_certificate and tls_key (RECSYS_TLS_CERTIFICATE, RECSYS_TLS_KEY)", has_tls),
        )
        if not there
    ]
    raise ConfigError(
        f"host {host} is reachable from other machines and needs {' and '.join(missing)}; set "
        "them, listen on 127.0.0.1, or set RECSYS_ALLOW_INSECURE=true on a network that you trust"
    )
