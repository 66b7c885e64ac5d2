"""The files under deploy/ fit the command line, the settings and this repository."""

import configparser
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from recsys.cli.app import app
from serving.config import ServiceConfig, build_config
from serving.environment import PREFIX

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def check_command(words: list[str]) -> dict[str, Any]:
    """Return the values that the command line reads from words; fail if it refuses them."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    return dict(command.make_context(command.name, words).params)


def is_setting(variable: str) -> bool:
    return variable.removeprefix(PREFIX).lower() in ServiceConfig.model_fields


@pytest.fixture
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return content


@pytest.fixture
def dockerfile() -> list[list[str]]:
    """Return the instructions; continued lines are joined."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]


def test_the_unit_serves_and_waits_for_the_calls_in_flight() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "recsys.service")
    program, *words = shlex.split(unit["Service"]["ExecStart"])

    assert Path(program).name == "recsys"
    assert check_command(words)["watch"] is True
    assert int(unit["Service"]["TimeoutStopSec"]) > ServiceConfig().drain_s
    assert unit["Service"]["KillMode"] == "mixed"
    lines = (DEPLOY / "recsys.service").read_text("utf-8").splitlines()
    settings = dict(
        line.removeprefix("Environment=").split("=", 1)
        for line in lines
        if line.startswith("Environment=")
    )
    config = build_config(settings)
    assert config.state == Path("/var/lib") / unit["Service"]["StateDirectory"]
    assert config.log_format == "json"


def test_the_image_has_what_it_copies_and_runs_the_service_without_rights(
    dockerfile: list[list[str]],
) -> None:
    copied = [name for kind, rest in dockerfile if kind == "COPY" for name in rest.split()[:-1]]
    packages = {"recsys", "vision", "text", "protos", "serving"}

    assert packages < set(copied)
    assert all((ROOT / name).exists() for name in copied)
    users = [rest for kind, rest in dockerfile if kind == "USER"]
    assert users == ["recsys"]
    words = yaml.safe_load(next(rest for kind, rest in dockerfile if kind == "CMD"))
    assert words[0] == "recsys"
    assert check_command(words[1:])["bundle"] == Path("/bundles")
    settings = next(rest for kind, rest in dockerfile if kind == "ENV").split()
    assert all(is_setting(one.split("=")[0]) for one in settings)


def test_the_services_of_compose_fit_together(
    compose: dict[str, Any], dockerfile: list[list[str]]
) -> None:
    service, redis = compose["services"]["recsys"], compose["services"]["redis"]
    env = next(rest for kind, rest in dockerfile if kind == "ENV").split()
    config = build_config(dict(one.split("=", 1) for one in env) | service["environment"])

    assert config.redis == "redis://redis:6379/0"
    assert service["ports"] == [f"127.0.0.1:{config.port}:{config.port}"]
    assert service["volumes"][0].endswith(":/bundles:ro")
    assert int(service["stop_grace_period"].removesuffix("s")) > config.drain_s
    kind, program, *words = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "recsys")
    assert check_command(words)["timeout_s"] == 2.0
    # What the service asks of a Redis when it starts.
    assert "--appendonly yes" in redis["command"]
    assert "--maxmemory-policy volatile-lru" in redis["command"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
