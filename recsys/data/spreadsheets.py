"""Tables that people open in a spreadsheet, in which no text of a supplier becomes a formula."""

import polars as pl

# A spreadsheet calculates a cell that begins like this, whatever wrote it, and some formulas start
# programs. An apostrophe before it makes it text. So that marks can be taken off again, texts that
# begin with apostrophes before such a character get one more.
_FORMULA = r"^('*[=+\-@\t\r])"


def mark_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with an apostrophe before each text that a spreadsheet would calculate."""
    return table.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${1}"))


def unmark_formulas(text: pl.Expr) -> pl.Expr:
    """Return the texts that were marked by ``mark_formulas``; other texts stay as they are."""
    return text.str.replace("^'" + _FORMULA.removeprefix("^"), "${1}")
