import re
import traceback
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
    with pytest.raises(ConfigError, match="tls_clients needs tls_certificate and tls_key"):
        build_config({}, tls_clients=Path("clients.pem"))


@pytest.mark.parametrize(
    "settings",
    [
        {"token": "sesame", "port": "-1"},
        {"token": "sesame", "tls_key": "key.pem"},
        {"token": "sesame\n2"},
        {"token": "sésame"},
        {"redis": "\tredis://:sesame@host", "redis_url": "sesame"},
        {"toke": "sesame"},
    ],
)
def test_secrets_are_never_shown(settings: dict[str, str]) -> None:
    environment = {f"RECSYS_{name.upper()}": value for name, value in settings.items()}

    with pytest.raises(ConfigError) as caught:
        build_config(environment, max_batch=0)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in ("sesame", "sésame"))
    assert "sesame" not in repr(build_config({"RECSYS_TOKEN": "sesame"}))


@pytest.mark.parametrize("token", ["", "  \t"])
def test_a_blank_token_is_refused_wherever_the_service_listens(token: str) -> None:
    wanted = r"token \(RECSYS_TOKEN\): must not be empty or blank; set a value"
    with pytest.raises(ConfigError, match=wanted):
        build_config({"RECSYS_TOKEN": token})
    protection = {"tls_certificate": Path("cert.pem"), "tls_key": Path("key.pem")}
    with pytest.raises(ConfigError, match=wanted):
        build_config({"RECSYS_TOKEN": token}, host="0.0.0.0", **protection)


@pytest.mark.parametrize("name", ServiceConfig.model_fields)
def test_an_empty_variable_is_a_value_that_was_not_filled_in(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} \(RECSYS_{name.upper()}\): must not be empty"):
        build_config({f"RECSYS_{name.upper()}": ""})


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("PORT", " 1234 ", 1234),
        ("HOST", "[::1]\n", "::1"),
        ("STATE", " /var/lib/recsys\n", Path("/var/lib/recsys")),
        ("NAMESPACE", " shop ", "shop"),
        ("ALLOW_INSECURE", "yes", True),
        ("ALLOW_INSECURE", " TRUE ", True),
        ("ALLOW_INSECURE", "1", True),
        ("ALLOW_INSECURE", "off", False),
        ("MAX_MESSAGE_BYTES", "64MiB", 64 * 2**20),
        ("MAX_MESSAGE_BYTES", "64 MB", 64_000_000),
        ("REDIS_BYTES", "0", 0),
        ("DRAIN_S", "1e1", 10.0),
    ],
)
def test_values_are_read_as_people_write_them(variable: str, value: str, wanted: object) -> None:
    config = build_config({f"RECSYS_{variable}": value})
    assert getattr(config, variable.lower()) == wanted


def test_a_token_is_taken_without_the_blanks_around_it() -> None:
    config = build_config({"RECSYS_TOKEN": " open sesame\n"})
    assert config.token is not None
    assert config.token.get_secret_value() == "open sesame"


def test_files_of_tls_may_be_in_the_home_folder() -> None:
    config = build_config({"RECSYS_TLS_CERTIFICATE": "~/c.pem", "RECSYS_TLS_KEY": "/k.pem"})
    assert config.tls_certificate == Path("~/c.pem").expanduser()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "inf"),
        ("REDIS_TIMEOUT_S", "inf"),
        ("REDIS_TIMEOUT_S", "nan"),
        ("REDIS_TIMEOUT_S", "1e9"),
        ("BATCH_WAIT_MS", "nan"),
        ("DRAIN_S", "inf"),
        ("HISTORY_TTL_S", "99999999999999999999"),
        ("EMBEDDING_TTL_S", "1e30"),
        ("MAX_MESSAGE_BYTES", "3GiB"),
        ("REDIS_BYTES", "-1"),
        ("REDIS_BYTES", "many"),
        ("DEVICE_TABLE_BYTES", "1EiB"),
        ("NAMESPACE", "{shop}"),
        ("NAMESPACE", "a:b"),
        ("HOST", "0.0.0.0:50051"),
        ("HOST", "http://localhost"),
    ],
)
def test_what_would_fail_later_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"\(RECSYS_{variable}\): .*, got '{re.escape(value)}'"):
        build_config({f"RECSYS_{variable}": value})


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="metrics_port must be another port than port, got 9000"):
        build_config({}, port=9000, metrics_port=9000)
    with pytest.raises(ConfigError, match="max_message_bytes must be at least max_image_bytes, 8"):
        build_config({}, max_message_bytes="1MiB")
    build_config({}, port=0, metrics_port=0)


def test_an_open_address_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="reachable from other machines"):
        build_config({}, host="0.0.0.0")


def test_every_setting_has_its_own_description() -> None:
    descriptions = [field.description for field in ServiceConfig.model_fields.values()]

    assert all(descriptions)
    assert len(set(descriptions)) == len(descriptions)
