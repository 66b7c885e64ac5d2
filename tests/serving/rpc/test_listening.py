from pathlib import Path
from typing import Any

import pytest

from recsys.errors import ConfigError
from serving.config import build_config
from serving.rpc.listening import Listener

TLS = Path(__file__).parent / "tls"


def listener(**settings: Any) -> Listener:
    files = {"tls_certificate": TLS / "certificate.pem", "tls_key": TLS / "key.pem"}
    return Listener(build_config({}, port=0, **(files | settings)))


def test_a_certificate_and_its_key_are_accepted() -> None:
    listener()


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{name} .*x.pem must be a readable file: No such file"):
        listener(**{name: tmp_path / "x.pem"})


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no certificate", b""])
def test_a_file_that_is_no_certificate_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_bytes(content)

    with pytest.raises(ConfigError, match=r"must be PEM files of a certificate"):
        listener(tls_certificate=tmp_path / "x.pem")


def test_the_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"but they do not go together: .*mismatch"):
        listener(tls_key=TLS / "other_key.pem")


def test_a_key_with_a_password_is_refused_without_asking_for_it() -> None:
    with pytest.raises(ConfigError, match="private key without a password"):
        listener(tls_key=TLS / "locked_key.pem")


def test_a_certificate_that_has_expired_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clients accept now: certificate (has|is)"):
        listener(tls_certificate=TLS / "expired.pem")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"no certificate", b""])
def test_signers_of_clients_are_certificates(content: bytes, tmp_path: Path) -> None:
    listener(tls_clients=TLS / "certificate.pem")
    (tmp_path / "x.pem").write_bytes(content)

    with pytest.raises(ConfigError, match=r"tls_clients .*x.pem must be a PEM file with certif"):
        listener(tls_clients=tmp_path / "x.pem")
