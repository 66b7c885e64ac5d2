from pathlib import Path

import pytest

from recsys.errors import ConfigError
from serving.config import ServiceConfig, build_config


def test_settings_win_over_the_environment_and_that_over_defaults() -> None:
    config = build_config(
        {"RECSYS_PORT": "1234", "RECSYS_HISTORY_EVENTS": "7"}, port=4321, state=None
    )

    assert (config.port, config.history_events) == (4321, 7)
    assert config.state == ServiceConfig.model_fields["state"].default


def test_other_variables_are_not_ours() -> None:
    assert build_config({"PORT": "1", "RECSYS_DATA": "/data"}).port == 50051


def test_every_problem_is_reported_at_once() -> None:
    environment = {"RECSYS_PORT": "many", "RECSYS_MAX_BATCH": "0", "RECSYS_REDDIS": "embedded"}

    with pytest.raises(ConfigError) as caught:
        build_config(environment)

    text = str(caught.value)
    assert "port (RECSYS_PORT): Input should be a valid integer" in text
    assert "got 'many'" in text
    assert "max_batch (RECSYS_MAX_BATCH): Input should be greater than or equal to 1" in text
    assert "reddis (RECSYS_REDDIS) is not a setting of the service; did you mean redis?" in text


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="tls_certificate and tls_key must be set together"):
        build_config({}, tls_certificate=Path("cert.pem"))


def test_the_token_is_never_shown() -> None:
    config = build_config({"RECSYS_TOKEN": "sesame"})
    assert "sesame" not in repr(config)

    with pytest.raises(ConfigError) as caught:
        build_config({}, token="sesame", tls_key=Path("key.pem"), port=-1)
    assert "sesame" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        build_config({}, token="sesame", tls_key=Path("key.pem"))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "  \t"])
def test_a_blank_token_is_refused(token: str) -> None:
    wanted = r"token \(RECSYS_TOKEN\): .*must not be empty or blank; set a token, .*got '"
    with pytest.raises(ConfigError, match=wanted):
        build_config({"RECSYS_TOKEN": token})
    protection = {"tls_certificate": Path("cert.pem"), "tls_key": Path("key.pem")}
    with pytest.raises(ConfigError, match=wanted):
        build_config({"RECSYS_TOKEN": token}, host="0.0.0.0", **protection)


def test_an_open_address_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="reachable from other machines"):
        build_config({}, host="0.0.0.0")


def test_every_setting_has_its_own_description() -> None:
    descriptions = [field.description for field in ServiceConfig.model_fields.values()]

    assert all(descriptions)
    assert len(set(descriptions)) == len(descriptions)
