import logging
from pathlib import Path

import pytest

from recsys.errors import ConfigError
from serving.config import ServiceConfig, build_config
from serving.environment import read_environment

# What Kubernetes sets for the Services recsys and recsys-metrics, of one port and of two.
LINKS = {
    "RECSYS_PORT": "tcp://192.0.2.1:50051",
    "RECSYS_SERVICE_HOST": "192.0.2.1",
    "RECSYS_SERVICE_PORT": "50051",
    "RECSYS_SERVICE_PORT_GRPC": "50051",
    "RECSYS_PORT_50051_TCP": "tcp://192.0.2.1:50051",
    "RECSYS_PORT_50051_TCP_ADDR": "192.0.2.1",
    "RECSYS_PORT_50051_TCP_PORT": "50051",
    "RECSYS_PORT_50051_TCP_PROTO": "tcp",
    "RECSYS_METRICS_SERVICE_HOST": "2001:db8::1",
    "RECSYS_METRICS_PORT": "tcp://[2001:db8::1]:9090",
    "RECSYS_METRICS_PORT_53_UDP_ADDR": "2001:db8::1",
}


def test_the_variables_of_a_kubernetes_service_are_ignored_and_named_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = build_config(LINKS | {"RECSYS_MAX_BATCH": "3"})

    assert config == ServiceConfig(max_batch=3)
    (line,) = caplog.messages
    assert line.removeprefix("ignored what Kubernetes sets for a Service: ") == ", ".join(
        sorted(LINKS)
    )


@pytest.mark.parametrize("name", ["RECSYS_PROT", "RECSYS_SERVICE_HOSTS", "RECSYS_PORT_TCP"])
def test_a_name_that_is_only_like_one_of_kubernetes_is_still_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"\({name}\) is not a setting of the service"):
        build_config({name: "1"})


def test_a_port_that_is_a_number_is_a_setting(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    assert read_environment({"RECSYS_PORT": "1", "PORT": "2", "RECSYS_DATA": "x"}) == {"port": "1"}
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("environment", "state"),
    [
        ({"XDG_STATE_HOME": "/var/state"}, "/var/state/recsys"),
        ({"XDG_STATE_HOME": "state"}, "~/.local/state/recsys"),
        ({"XDG_STATE_HOME": ""}, "~/.local/state/recsys"),
        ({"XDG_STATE_HOME": "/var/state", "RECSYS_STATE": "mine"}, "mine"),
    ],
)
def test_the_default_state_folder_is_where_the_system_keeps_state(
    environment: dict[str, str], state: str
) -> None:
    assert build_config(environment).state == Path(state)
