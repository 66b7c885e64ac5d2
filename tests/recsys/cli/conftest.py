"""Fixtures that run a command in this process, as a program or a person would."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from recsys.cli.app import app, main

Ask = Callable[..., Any]
Say = Callable[..., str]


@pytest.fixture
def ask() -> Ask:
    """Run a command with --json and return what it printed."""

    def run(*arguments: object) -> Any:
        words = [*map(str, arguments), "--json"]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return run


@pytest.fixture
def say() -> Say:
    """Run a command and return what it printed for people, on one line."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return " ".join(result.stdout.split())

    return run


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command that must be refused and return its error message."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["recsys", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert caught.value.code == 2
        assert "Traceback" not in said.err
        # Progress bars may come before the error.
        _, found, message = f"\n{said.err}".partition("\nerror: ")
        assert found
        return message.strip()

    return run
