"""The measurable part of plain English: what a script can see of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("recsys", "vision", "text", "serving", "benchmarks", "examples", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SECTION = re.compile(r"^\s*(Args|Raises|Returns|Yields):\n((?:\s*\n|\s+.*(?:\n|$))*)", re.MULTILINE)
RULES = {
    "an entry of Args is a noun phrase that stands alone, not 'Of …'": (
        "Args",
        re.compile(r"^\s*\**\w+: Of\b", re.MULTILINE),
    ),
    "a Raises entry says what is wrong, not that something 'is none' or 'is no …'": (
        "Raises",
        re.compile(r"\b(?:is|are) (?:none|no)\b"),
    ),
}


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def _offences(source: str) -> list[tuple[int, str]]:
    """Return the line and the rule of every section that breaks one."""
    return [
        (line, rule)
        for line, text in _docstrings(source)
        for section in SECTION.finditer(text)
        for rule, (name, pattern) in RULES.items()
        if section[1] == name and pattern.search(section[2])
    ]


def _files(*folders: str) -> list[Path]:
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "_pb2" not in path.name and path != Path(__file__)
    ]


def test_the_sections_of_docstrings_read_plainly() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {rule}"
        for path in _files(*PACKAGES)
        for line, rule in _offences(path.read_text("utf-8"))
    ]

    assert found == []


def test_nothing_is_told_where_it_is_passed_called_or_counted() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*_files(*PACKAGES), *DOCUMENTS]
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if re.search(r"(?:\b|_)told(?:\b|_)", line)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("section", "is_plain"),
    [
        ("Args:\n    seed: Of every draw.", False),
        ("Args:\n    n: Items.\n    seed: Of every draw.", False),
        ("Args:\n    **rest: Of the model.", False),
        ("Args:\n    seed: Random seed for sampling.", True),
        ("Raises:\n    ValueError: If the picture is none.", False),
        (
            "Raises:\n    ValueError: If there are no events,\n        or a share is no share.",
            False,
        ),
        ("Raises:\n    ValueError: If the table is empty.", True),
        ("Returns:\n    Nothing where there is no event.", True),
    ],
)
def test_the_rules_see_what_they_are_for(section: str, is_plain: bool) -> None:
    indented = "    ".join(f"First line.\n\n{section}\n".splitlines(keepends=True))
    source = f'def f():\n    """{indented}    """\n'

    assert (_offences(source) == []) is is_plain
