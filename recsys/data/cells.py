"""Read one stored column, of whatever type, as one of the canonical types."""

import json
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from recsys.data.timestamps import parse_timestamp

PATH = pl.List(pl.String())
PAIRS = pl.List(pl.Struct({"key": pl.String(), "value": pl.String()}))
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Cells(NamedTuple):
    """A column in its canonical type, and the text of the cells that cannot be read as it."""

    value: pl.Expr
    refused: pl.Expr | None = None


class Reader(NamedTuple):
    """How to read a stored column; None where its type makes no sense."""

    read: Callable[[str, pl.DataType], Cells | None]
    wants: str


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


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
    # Floats make no sense: an id that was once read as a number would become "17850.0".
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
    if isinstance(dtype, pl.Datetime | pl.Date | pl.Null):  # without a zone, UTC is meant
        return Cells(column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    return None


def _read_path(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        parts = _text(name).str.split(">")
    elif isinstance(dtype, pl.Null) or (
        isinstance(dtype, pl.List) and _is_one_of(dtype.inner, pl.String, pl.Enum, pl.Null)
    ):
        parts = pl.col(name).cast(PATH)
    else:
        return None
    trimmed = parts.list.eval(pl.element().str.strip_chars())
    return Cells(trimmed.list.eval(pl.element().filter(pl.element() != "")))


def _read_pairs(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        return _parsed(name, lambda text: text.map_batches(_json_pairs, return_dtype=PAIRS))
    if isinstance(dtype, pl.Struct) and all(_is_plain(dtype[field]) for field in dtype):
        struct = pl.col(name).struct
        pairs = pl.concat_list(
            pl.struct(key=pl.lit(field), value=struct.field(field).cast(pl.String))
            for field in dtype
        )
    elif isinstance(dtype, pl.Map | pl.Null) or _is_pair_list(dtype):
        pairs = pl.col(name).cast(PAIRS)
    else:
        return None
    # What has no value is no attribute: NDJSON gives every row the fields of all rows.
    has_value = pl.element().struct.field("value").is_not_null()
    return Cells(pairs.list.eval(pl.element().filter(has_value)))
