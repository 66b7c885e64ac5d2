import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand as Command
from typer.core import TyperGroup as Group
from typer.testing import CliRunner

from recsys.cli.app import DEFECT, SYSTEM, OneLine, app, main

COMMANDS = [
    "demo",
    "check",
    "import",
    "train",
    "evaluate",
    "recommend",
    "similar",
    "search",
    "identify",
    "embed",
    "serve",
]


def commands() -> list[Command]:
    """Return every command, also those of groups."""
    found: list[Command] = []
    left: list[Command] = [typer.main.get_command(app)]
    while left:
        command = left.pop()
        found.append(command)
        left += command.commands.values() if isinstance(command, Group) else ()
    return found


def help_texts(command: Command) -> list[str]:
    """Return the help text of a command and of each of its options and arguments."""
    options = [str(getattr(one, "help", None) or "") for one in command.params]
    return [command.help or "", *options]


def test_help_lists_every_command_of_the_readme_in_its_order() -> None:
    answer = CliRunner().invoke(app, ["--help"])
    assert answer.exit_code == 0
    listed = re.findall(r"^[│ ]+([a-z]+) {2,}\S", answer.stdout, flags=re.MULTILINE)
    assert [name for name in listed if name in COMMANDS] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page(command: str) -> None:
    answer = CliRunner().invoke(app, [command, "--help"])
    assert answer.exit_code == 0
    assert re.search(rf"Usage: \S+ {command} ", answer.stdout)


def test_no_help_text_has_square_brackets_which_would_vanish_as_markup() -> None:
    texts = [text for command in commands() for text in help_texts(command)]
    assert len(texts) > 100
    assert [text for text in texts if "[" in text] == []


@pytest.mark.parametrize("command", ["check", "import", "train", "evaluate"])
def test_commands_on_tables_and_bundles_can_print_json(command: str) -> None:
    assert "--json" in CliRunner().invoke(app, [command, "--help"]).stdout


@pytest.mark.parametrize("command", ["recommend", "similar", "search", "identify", "embed"])
def test_every_query_command_can_print_json(command: str) -> None:
    assert "--json" in CliRunner().invoke(app, [command, "--help"]).stdout


def test_importing_the_commands_imports_neither_torch_nor_the_service() -> None:
    code = "import recsys.cli.app, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "'recsys'" in result.stdout
    for heavy in ("torch", "polars", "grpc", "serving"):
        assert f"'{heavy}'" not in result.stdout


def test_an_expected_error_is_one_line_on_stderr(refusal: Callable[..., str]) -> None:
    message = refusal("recommend", "no-such-bundle", "user")
    assert message == ("bundle must be a folder, got no-such-bundle; train one with `recsys train`")


@pytest.mark.parametrize("words", [("similar", "b"), ("recommend", "b"), ("live", "forget")])
def test_an_argument_that_begins_with_a_dash_gets_a_hint(words: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*words, "-x1"])
    assert answer.exit_code == 2
    said = " ".join(answer.stderr.replace("│", " ").split())
    assert "No such option: -x; an argument that begins with - is written after --" in said


def test_brackets_in_an_error_are_printed_as_they_are(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "[bold]shop[/x].toml"
    assert str(path) in refusal("check", path)


def test_a_command_ends_without_a_search_for_garbage() -> None:
    code = (
        "import atexit, gc, sys; atexit.register(lambda: print('frozen', gc.get_freeze_count()))\n"
        "from recsys.cli.app import main; sys.argv = ['recsys', 'no-such-command']; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    word, count = result.stdout.split()  # what was registered first is called last
    assert (word, int(count) > 10_000) == ("frozen", True)


def test_an_unknown_command_is_a_usage_error() -> None:
    answer = CliRunner().invoke(app, ["recomend"])
    assert answer.exit_code == 2
    assert "recomend" in answer.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a number of ours"), DEFECT),
        (KeyError("a name of ours"), DEFECT),
        (OSError(28, "No space left on device"), SYSTEM),
    ],
)
def test_an_unexpected_error_keeps_its_traceback_and_ends_with_a_line_that_explains_it(
    error: Exception,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("recsys.recommender.Recommender.load", fail)
    monkeypatch.setattr("sys.argv", ["recsys", "similar", "runs/shop", "item-00001"])
    with pytest.raises(SystemExit) as caught:
        main()

    printed = capsys.readouterr().err
    assert caught.value.code == 1
    assert "Traceback" in printed
    assert "in fail" in printed
    assert printed.strip().endswith(said)


def test_a_machine_without_a_folder_for_temporary_files_is_asked_for_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    monkeypatch.setattr(
        "recsys.recommender.Recommender.load", lambda *_: tempfile.TemporaryDirectory()
    )
    monkeypatch.setattr("sys.argv", ["recsys", "similar", "runs/shop", "item-00001"])
    with pytest.raises(SystemExit) as caught:
        main()

    wanted = "error: No usable temporary directory found in ['/nowhere']; set TMPDIR to a folder"
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(wanted)


def test_a_name_in_an_error_or_a_log_cannot_act_on_the_terminal(
    refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no\\u001b[2J\\u202e.toml" in refusal("check", "no\x1b[2J\u202e.toml")
    formatter = OneLine("%(levelname)s %(name)s: %(message)s")
    try:
        raise ValueError("torn\x1b")
    except ValueError:
        record = logging.makeLogRecord(
            {"name": "vision", "msg": "no %s", "args": ("a\nERROR b",), "exc_info": sys.exc_info()}
        )
    lines = formatter.format(record).splitlines()
    assert lines[0].endswith("vision: no a\\nERROR b")
    assert lines[-1] == "ValueError: torn\\u001b"
