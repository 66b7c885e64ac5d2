"""Ids and other short words, without what copying and exporting adds to them."""

import string

import polars as pl

from recsys.schema import BLANKS, CONTROL_CHARACTER

# A JSON list or object, such as titles by language: never an id or a title itself.
STRUCTURE = r"""^\s*(?:\[\s*["'\[{]|\{\s*["']).*[\]}]\s*$"""
_PLAIN = "".join(
    set(string.ascii_letters + string.digits + string.punctuation) - set("[{")
).encode()


def trim_id(text: str) -> str:
    """Return an id without the blanks around it, as ``clean_ids`` makes those of tables."""
    return text.strip(BLANKS)


def clean_ids(text: pl.Expr) -> pl.Expr:
    """Return ids without blanks around them, null where that leaves nothing or no id.

    A text with a control character is not an id, and neither is a JSON list or object.

    Args:
        text: String column.
    """
    return text.map_batches(_clean, return_dtype=pl.String, is_elementwise=True)


def clean_words(text: pl.Expr) -> pl.Expr:
    """Return words as ``clean_ids`` does, in lower case.

    Args:
        text: String column.
    """
    return text.map_batches(_clean_and_lower, return_dtype=pl.String, is_elementwise=True)


def _clean(texts: pl.Series) -> pl.Series:
    # Looking at all ids as one text takes a fraction of the time that looking at each does.
    is_plain = not _joined(texts).encode().translate(None, delete=_PLAIN)
    if is_plain and not (texts.str.len_bytes() == 0).any():
        return texts
    stripped = pl.col("id").str.strip_chars(BLANKS)
    is_none = (stripped == "") | stripped.str.contains(CONTROL_CHARACTER)
    is_none |= stripped.str.contains(STRUCTURE)
    return texts.to_frame("id").select(pl.when(~is_none).then(stripped)).to_series()


def _clean_and_lower(texts: pl.Series) -> pl.Series:
    joined = _joined(texts)
    return _clean(texts if joined == joined.lower() else texts.str.to_lowercase())


def _joined(texts: pl.Series) -> str:
    return texts.str.join().item() or "" if len(texts) else ""
