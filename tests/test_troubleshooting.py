"""docs/troubleshooting.md quotes the errors as the code words them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
HOLE = "…"  # stands for a value, in the page and in the code's f-strings
# First cell of a row that begins with a code span: messages of ours.
ROW = re.compile(r"^\| (`[^|]+) \|", re.MULTILINE)


def _wording(node: ast.expr) -> str:
    """Return a string of the code with a hole for each value; a hole alone for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_wording(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _wording(left) + _wording(right)
        case _:
            return HOLE


def _messages(root: Path) -> set[str]:
    """Return the wording of every string of the packages, and the Makefile."""
    return {(root / "Makefile").read_text("utf-8")} | {
        _wording(node)
        for package in ("recsys", "vision", "text", "serving")
        for path in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
    }


def _unknown(page: str, messages: set[str]) -> list[str]:
    """Return the messages quoted in a page that no code has."""
    quoted = [span for row in ROW.findall(page) for span in re.findall(r"`(.+?)`", row)]
    assert quoted, "the page must quote messages in the first cells of its tables"
    return [span for span in quoted if not any(span.strip(f"{HOLE} ") in text for text in messages)]


def test_every_quoted_error_is_one_that_the_code_raises() -> None:
    assert _unknown(PAGE.read_text("utf-8"), _messages(ROOT)) == []


def test_a_message_that_no_code_has_is_found() -> None:
    page = "| `bundle must be a folder, got …` `bundle must be a balloon` | why | what |\n"

    assert _unknown(page, _messages(ROOT)) == ["bundle must be a balloon"]
