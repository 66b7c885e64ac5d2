import polars as pl
import pytest

from recsys.data.spreadsheets import mark_formulas, unmark_formulas

TEXTS = [
    "=1+1",
    "+1",
    "-5",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''-1",
    "'plain",
    "plain",
    "a=b",
    "",
    None,
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_begins_as_a_formula_and_each_is_read_back(text: str | None) -> None:
    marked = mark_formulas(
        pl.DataFrame({"text": [text], "number": [-5.0]}, {"text": pl.String, "number": pl.Float64})
    )
    cell = marked["text"][0]
    assert cell is None or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert marked["number"].to_list() == [-5.0]
    assert marked.select(unmark_formulas(pl.col("text")))["text"].to_list() == [text]


def test_texts_that_are_no_formulas_stay() -> None:
    table = pl.DataFrame({"text": ["plain", "'plain", "a=b", "3-1"]})
    assert mark_formulas(table).equals(table)
    assert table.select(unmark_formulas(pl.col("text"))).equals(table)
