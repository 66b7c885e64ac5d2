"""Run commands in this process, as programs and as people run them."""

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
    """Run a command and return what it printed for people, as one line of words."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return " ".join(result.stdout.split())

    return run


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command that must be refused and return the error that it ends with."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["recsys", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        assert caught.value.code == 2
        assert "Traceback" not in said.err
        # After the bars of what was done until then, if there were any.
        _, found, message = f"\n{said.err}".partition("\nerror: ")
        assert found
        return message.strip()

    return run
