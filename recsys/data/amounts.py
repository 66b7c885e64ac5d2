"""Amounts of money and numbers of units, read from text as programs and people write them."""

import re

import polars as pl

_CURRENCY = r"(?:[$¢£¤¥฿﷼\u20a0-\u20cf]|(?:[A-Z]{3}|kr|zł|Kč|Ft|Rs)\.?)"
_AMOUNT = re.compile(
    rf"{_CURRENCY}?\s*(?P<sign>[-+−]?)\s*(?:{_CURRENCY}\s*)?"
    rf"(?P<digits>\d(?:[\d.,'’\s]*\d)?)\s*{_CURRENCY}?"
)
_GROUPED = re.compile(r"\d{1,3}(?:\D\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}")  # the latter in India


def parse_amounts(text: pl.Expr) -> pl.Expr:
    """Return amounts as Float64, null where text is not a number or could be two.

    Numbers as programs write them, such as ``1234.5`` or ``1.5e3``, are read by polars, and the
    others by ``parse_amount``.

    Args:
        text: String column without blanks around its cells.
    """
    number = text.cast(pl.Float64, strict=False)
    others = pl.when(number.is_null()).then(text)
    return number.fill_null(
        others.map_batches(_parse_all, return_dtype=pl.Float64, is_elementwise=True)
    )


def _parse_all(texts: pl.Series) -> pl.Series:
    if texts.null_count() == len(texts):
        return pl.Series(texts.name, [None], dtype=pl.Float64).new_from_index(0, len(texts))
    amounts = [None if text is None else parse_amount(text) for text in texts]
    return pl.Series(texts.name, amounts, dtype=pl.Float64)


def parse_amount(text: str) -> float | None:
    """Return an amount as people write it, None if it is not one or could be two.

    A currency may stand before or after it. Thousands may be grouped by a comma, point, blank or
    apostrophe, and the decimal mark is a point or a comma. ``1,500`` and ``€ 1.500`` could be both
    1.5 and 1500, so they are not read; ``0,500``, ``1,50`` and ``1.500,00`` are.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        return None
    digits = match["digits"]
    marks = re.findall(r"\D", digits)
    if not marks:
        plain = digits
    elif marks[-1] in ".," and marks[-1] not in marks[:-1]:
        whole, _, decimals = digits.rpartition(marks[-1])
        could_be_a_group = len(marks) == 1 and len(decimals) == 3 and 0 < len(whole.lstrip("0")) < 4
        if could_be_a_group or not _is_grouped(whole):
            return None
        plain = f"{re.sub(r'[^0-9]', '', whole)}.{decimals}"
    else:
        if not _is_grouped(digits):
            return None
        plain = re.sub(r"\D", "", digits)
    return float(plain) * (-1 if match["sign"] in ("-", "−") else 1)


def _is_grouped(digits: str) -> bool:
    """Return whether digits have no mark, or one kind of mark before each group of them."""
    marks = set(re.findall(r"\D", digits))
    return not marks or (len(marks) == 1 and _GROUPED.fullmatch(digits) is not None)
