import pytest
from jinja2 import Environment
from markupsafe import Markup

from vision.printable import one_line, printable, shown_on_page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
        ("a\rb\x00c\x07", "a\\u000db\\u0000c\\u0007"),
        ("\x9b2J\x7f", "\\u009b2J\\u007f"),  # what a terminal takes for an escape in one character
        ("mug\u202egpj.exe", "mug\\u202egpj.exe"),
        ("\u2066a\u2069\u2028b", "\\u2066a\\u2069\\u2028b"),
        ("\ud800", "\\ud800"),
        ("[red]x[/] :mug: <b> =1+1", "[red]x[/] :mug: <b> =1+1"),
        ("café 中文 עברית العربية 👩‍🚀\ta\nb", "café 中文 עברית العربية 👩‍🚀\ta\nb"),
    ],
)
def test_only_characters_that_act_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode()


def test_one_line_has_no_line_breaks_and_an_end() -> None:
    assert one_line("a\nb\tc\x1b") == "a\\nb c\\u001b"
    assert one_line("x" * 20_000, limit=10) == "x" * 9 + "…"
    assert one_line("x" * 10, limit=10) == "x" * 10


def test_a_page_shows_escapes_and_keeps_its_own_markup() -> None:
    page = Environment(autoescape=True, finalize=shown_on_page).from_string(
        "{% macro bold(text) %}<b>{{ text }}</b>{% endmacro %}"
        "<p>{{ bold(title) }}{{ n }}{{ own }}</p>"
    )
    title = "</script>\u202e\x00\ud800"
    assert page.render(title=title, n=1, own=Markup("<i>")) == (
        "<p><b>&lt;/script&gt;\\u202e\\u0000\\ud800</b>1<i></p>"
    )
