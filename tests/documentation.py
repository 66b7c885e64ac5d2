"""The code blocks of README.md and of the pages under docs/.

A block is run unless a comment before it gives a reason::

    <!-- not run: needs a graphics card -->
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RUNNABLE = ("python", "sh")

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A fenced code block.

    Args:
        where: Page and line of the block.
        language: Word after the opening fence.
        text: Text between the fences.
        reason: Reason why the block is not run; empty for a block that is run.
    """

    where: str
    language: str
    text: str
    reason: str


def read_blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Block(
            f"{page.name}:{text.count(chr(10), 0, match.start('language')) + 1}",
            match["language"],
            match["text"],
            match["reason"] or "",
        )
        for match in _FENCE.finditer(text)
    ]


def executed_blocks(pages: Sequence[Path] = PAGES) -> list[Block]:
    """Return the Python and shell blocks that the tests run."""
    return [
        block
        for page in pages
        for block in read_blocks(page)
        if block.language in RUNNABLE and not block.reason
    ]
