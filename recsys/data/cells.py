"""Read one stored column of any type as one of the canonical types."""

import json
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from recsys.data.timestamps import parse_timestamp

PATH = pl.List(pl.String())
PAIRS = pl.List(pl.Struct({"key": pl.String(), "value": pl.String()}))
_TEXT = pl.String | pl.Categorical | pl.Enum
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Cells(NamedTuple):
    """A column in its canonical type, and the text of the cells that cannot be read."""

    value: pl.Expr
    refused: pl.Expr | None = None


class Reader(NamedTuple):
    """A function that reads a stored column, or returns None if it cannot read its type."""

    read: Callable[[str, pl.DataType], Cells | None]
    wants: str


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, _TEXT)


def _is_plain(dtype: pl.DataType) -> bool:
    return _is_text(dtype) or dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)


def _text(name: str) -> pl.Expr:
    """Return a column as text, null where it is blank."""
    text = pl.col(name).cast(pl.String)
    return pl.when(text.str.strip_chars() != "").then(text)


def _parsed(name: str, parse: Callable[[pl.Expr], pl.Expr]) -> Cells:
    text = _text(name)
    value = parse(text.str.strip_chars())
    return Cells(value, pl.when(value.is_null()).then(text))


def _read_text(name: str, dtype: pl.DataType) -> Cells | None:
    # Floats are refused: an id that was once read as a number would become "17850.0".
    known = _is_text(dtype) or dtype.is_integer() or isinstance(dtype, pl.Null)
    return Cells(_text(name)) if known else None


def _read_number(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        return _parsed(name, lambda text: text.cast(pl.Float64, strict=False))
    known = dtype.is_numeric() or isinstance(dtype, pl.Null)
    return Cells(pl.col(name).cast(pl.Float64)) if known else None


def _read_flag(name: str, dtype: pl.DataType) -> Cells | None:
    def parse(text: pl.Expr) -> pl.Expr:
        lower = text.str.to_lowercase()
        return lower.replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)

    if isinstance(dtype, pl.Boolean | pl.Null):
        return Cells(pl.col(name).cast(pl.Boolean))
    return _parsed(name, parse) if _is_text(dtype) or dtype.is_integer() else None


def _read_time(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        return _parsed(name, parse_timestamp)
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return Cells(column.dt.convert_time_zone("UTC").dt.cast_time_unit("us"))
    if isinstance(dtype, pl.Datetime | pl.Date | pl.Null):  # times without a zone are UTC
        return Cells(column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    return None


def _read_path(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        parts = _text(name).str.split(">")
    elif isinstance(dtype, pl.Null) or _is_text_list(dtype):
        parts = pl.col(name).cast(PATH)
    else:
        return None
    trimmed = parts.list.eval(pl.element().str.strip_chars())
    return Cells(trimmed.list.eval(pl.element().filter(pl.element() != "")))


def _read_pairs(name: str, dtype: pl.DataType) -> Cells | None:
    refused = None
    if _is_text(dtype):
        pairs, refused = _parsed(name, _parse_all_pairs)
    elif isinstance(dtype, pl.Struct) and all(
        _is_plain(field) for field in _fields(dtype).values()
    ):
        struct = pl.col(name).struct
        pairs = pl.concat_list(
            pl.struct(key=pl.lit(field), value=struct.field(field).cast(pl.String))
            for field in _fields(dtype)
        )
    elif isinstance(dtype, pl.Map | pl.Null) or _is_pair_list(dtype):
        pairs = pl.col(name).cast(PAIRS)
    else:
        return None
    # An attribute without a value is dropped: NDJSON gives every row the fields of all rows.
    has_value = pl.element().struct.field("value").str.strip_chars() != ""
    return Cells(pairs.list.eval(pl.element().filter(has_value)), refused)


def _fields(dtype: pl.Struct) -> dict[str, pl.DataType]:
    return {field.name: field.dtype for field in dtype.fields}  # type: ignore[misc]


def _is_text_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List) and isinstance(dtype.inner, _TEXT | pl.Null)


def _is_pair_list(dtype: pl.DataType) -> bool:
    if not (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)):
        return False
    fields = _fields(dtype.inner)
    return fields.keys() == {"key", "value"} and all(map(_is_plain, fields.values()))


def _parse_all_pairs(texts: pl.Expr) -> pl.Expr:
    def parse(batch: pl.Series) -> pl.Series:
        return pl.Series(batch.name, [parse_pairs(text) for text in batch], dtype=PAIRS)

    return texts.map_batches(parse, return_dtype=PAIRS, is_elementwise=True)


def parse_pairs(text: str | None) -> list[dict[str, str]] | None:
    """Return the pairs in the text of a flat JSON object, None if ``text`` is anything else."""
    try:
        values = json.loads(text or "null")
        if not isinstance(values, dict) or any(isinstance(v, dict | list) for v in values.values()):
            return None
        pairs = [
            {"key": key, "value": value if isinstance(value, str) else json.dumps(value)}
            for key, value in values.items()
            if value is not None
        ]
        for pair in pairs:  # JSON can escape half a character, which no table can hold
            "".join(pair.values()).encode()
    except (ValueError, RecursionError):
        return None
    return pairs


READERS: dict[pl.DataType, Reader] = {
    pl.String(): Reader(_read_text, "text or integers"),
    pl.Float64(): Reader(_read_number, "numbers"),
    pl.Boolean(): Reader(_read_flag, "true or false"),
    pl.Datetime("us", "UTC"): Reader(
        _read_time, "date-times or ISO 8601 text (convert Unix seconds with polars.from_epoch)"
    ),
    PATH: Reader(_read_path, "lists of text, or text such as 'A > B'"),
    PAIRS: Reader(_read_pairs, "maps, flat structs, or JSON objects as text"),
}
