"""Text of others, such as titles and file names, made safe to show on a terminal or a page."""

import re
from typing import Any

# Control characters, among them the escape that moves a terminal's cursor; what ends a line but is
# not "\n"; what turns the direction of the text around it; and halves of a character, which no
# encoding has. Tabs and line breaks are allowed.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text with an escape such as ``\u001b`` for each character that acts when shown.

    Letters of all scripts, line breaks and tabs stay.
    """
    return _ACTING.sub(_escape, text)


def one_line(text: str, *, limit: int | None = None) -> str:
    r"""Return a text as ``printable`` does, with ``\n`` for each line break.

    Args:
        text: Text of any length and kind.
        limit: Largest number of characters, beyond which the text ends in an ellipsis.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return printable(text).replace("\n", r"\n").replace("\t", " ")


def shown_on_page(value: Any) -> Any:
    """Return what a template shows for a value, as Jinja's ``finalize``; it escapes HTML later."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value) if is_text else value


def _escape(found: re.Match[str]) -> str:
    return rf"\u{ord(found[0]):04x}"
