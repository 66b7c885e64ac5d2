import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main
from typer.core import TyperCommand as Command
from typer.core import TyperGroup as Group

from benchmarks.record import latest
from benchmarks.table_rows import TABLES
from benchmarks.tables import PAGES, render
from recsys.cli.app import app
from recsys.config import TrainConfig, read_rules
from recsys.rules import Rules

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
OURS = ("recsys", "vision", "text", "serving", "benchmarks")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced code block, and the page and line where it begins."""

    where: str
    text: str


def _blocks(language: str) -> list[Block]:
    return [
        Block(f"{path.name}:{text[: match.start()].count(chr(10)) + 1}", match[2])
        for path in DOCUMENTS
        for text in [path.read_text("utf-8")]
        for match in FENCE.finditer(text)
        if match[1] == language
    ]


def _commands(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of every ``recsys`` command line; continued lines are joined."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "recsys":
            yield words[1:]


def _command(words: list[str]) -> tuple[Command, list[str]]:
    """Return the command that the first words name, and the remaining words."""
    command: Command = typer.main.get_command(app)
    while isinstance(command, Group):
        assert words, f"{command.name} needs one of {sorted(command.commands)}"
        assert words[0] in command.commands, f"recsys has no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_tables_show_the_recorded_results() -> None:
    texts = [page.read_text("utf-8") for page in PAGES]

    for text in texts:
        assert text == render(text, latest()), "run python -m benchmarks.tables --write"
    shown = [name for name in TABLES for text in texts if f"<!-- results:begin {name} -->" in text]
    assert sorted(shown) == sorted(TABLES)


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")

    commands = re.findall(r"^make (\w+)", readme, flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    for name in commands:
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_existing_files_and_headings(path: Path) -> None:
    for link in LINK.findall(path.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):  # another site: the tests are offline
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), flags=re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{path.name} links to {link}"


def test_python_examples_parse_and_import_existing_names() -> None:
    blocks = _blocks("python")
    assert blocks

    for where, text in blocks:
        for node in ast.walk(ast.parse(text, filename=where)):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.split(".")[0] in OURS:
                    module = importlib.import_module(node.module)
                    missing = [name.name for name in node.names if not hasattr(module, name.name)]
                    assert not missing, f"{where}: {node.module} has no {missing}"
            elif isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)


def test_shell_examples_use_existing_commands_and_options() -> None:
    lines = [(block.where, words) for block in _blocks("sh") for words in _commands(block)]
    assert lines

    for where, words in lines:
        command, rest = _command(words)
        known = {option for param in command.params for option in param.opts} | {"--help"}
        used = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert used <= known, f"{where}: recsys {command.name} has no {sorted(used - known)}"


def test_the_readme_shows_every_command() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    shown = {
        words[0]
        for block in _blocks("sh")
        if block.where.startswith("README.md")
        for words in _commands(block)
    }

    hidden = {name for name, command in group.commands.items() if command.hidden}
    assert shown >= set(group.commands) - hidden - {"demo"}  # `make demo` runs `recsys demo`


def test_toml_examples_are_valid_configurations() -> None:
    blocks = _blocks("toml")
    assert blocks

    for where, text in blocks:
        values = tomllib.loads(text)
        if where.startswith("rules.md"):
            assert read_rules(values.get("rules", values)) != Rules(), where
        else:
            config = TrainConfig.model_validate(values)
            tables = config.data.items or config.data.photos
            assert tables or "data" not in values, where
