"""Read one stored column of any type as one of the canonical types."""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import polars as pl

from recsys.data.amounts import parse_amounts
from recsys.data.ids import STRUCTURE, clean_ids, clean_words
from recsys.data.timestamps import date_bounds, from_unix, parse_timestamp
from recsys.schema import BLANKS

PATH = pl.List(pl.String())
PAIRS = pl.List(pl.Struct({"key": pl.String(), "value": pl.String()}))
_TEXT = pl.String | pl.Categorical | pl.Enum
_FLAGS = {
    **dict.fromkeys(("true", "yes", "1", "t", "y", "in stock", "in_stock"), True),
    **dict.fromkeys(("false", "no", "0", "f", "n", "out of stock", "out_of_stock"), False),
}


class Cells(NamedTuple):
    """A column in its canonical type, and as text if some of its cells may be unreadable.

    A cell is unreadable if it has no value, and text that is not blank.
    """

    value: pl.Expr
    text: pl.Expr | None = None


class Reader(NamedTuple):
    """A function that reads a stored column, or returns None if it cannot read its type."""

    read: Callable[[str, pl.DataType], Cells | None]
    wants: str


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, _TEXT)


def _is_plain(dtype: pl.DataType) -> bool:
    return _is_text(dtype) or dtype.is_numeric() or isinstance(dtype, pl.Boolean | pl.Null)


def _text(name: str) -> pl.Expr:
    return without_blank(pl.col(name).cast(pl.String))


def without_blank(text: pl.Expr) -> pl.Expr:
    """Return text, null where it is blank."""
    return pl.when(text.str.strip_chars(BLANKS) != "").then(text)


def _parsed(name: str, parse: Callable[[pl.Expr], pl.Expr]) -> Cells:
    text = _text(name)
    return Cells(parse(text.str.strip_chars()), text)


def _read_text(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        text = _text(name)
        return Cells(pl.when(~text.str.contains(STRUCTURE)).then(text), text)
    return Cells(_text(name)) if dtype.is_integer() or isinstance(dtype, pl.Null) else None


def _read_ids(clean: Callable[[pl.Expr], pl.Expr]) -> Callable[[str, pl.DataType], Cells | None]:
    def read(name: str, dtype: pl.DataType) -> Cells | None:
        # Floats are refused: an id that was once read as a number would become "17850.0".
        if not (_is_text(dtype) or dtype.is_integer() or isinstance(dtype, pl.Null)):
            return None
        text = pl.col(name).cast(pl.String)
        return Cells(clean(text), text)

    return read


def _read_number(name: str, dtype: pl.DataType) -> Cells | None:
    if _is_text(dtype):
        return _parsed(name, parse_amounts)
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
    column = pl.col(name)
    if _is_text(dtype):
        return _parsed(name, parse_timestamp)
    if dtype.is_numeric():
        number = column.cast(pl.Int64 if dtype.is_integer() else pl.Float64, strict=False)
        return Cells(from_unix(number), column.cast(pl.String))
    if isinstance(dtype, pl.Null):
        return Cells(column.cast(pl.Datetime("us", "UTC")))
    if not isinstance(dtype, pl.Datetime | pl.Date):
        return None
    number = column.to_physical()
    is_date = number.is_between(*date_bounds(dtype))  # polars panics at others
    moment = pl.when(is_date).then(column)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        value = moment.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    else:  # times without a zone are UTC
        value = moment.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return Cells(value, pl.when(~is_date).then(number).cast(pl.String))


def _read_path(name: str, dtype: pl.DataType) -> Cells | None:
    text = None
    if _is_text(dtype):
        text = _text(name)
        stripped = text.str.strip_chars()
        is_json = stripped.str.starts_with("[") | stripped.str.starts_with("{")
        as_json = _parse_json(pl.when(is_json).then(stripped), parse_path, PATH)
        parts = pl.when(is_json).then(as_json).otherwise(text.str.split(">"))
    elif isinstance(dtype, pl.Null) or _is_text_list(dtype):
        parts = pl.col(name).cast(PATH)
    else:
        return None
    trimmed = parts.list.eval(pl.element().str.strip_chars())
    return Cells(trimmed.list.eval(pl.element().filter(pl.element() != "")), text)


def _read_pairs(name: str, dtype: pl.DataType) -> Cells | None:
    text = None
    if _is_text(dtype):
        text = _text(name)
        pairs = _parse_json(text, parse_pairs, PAIRS)
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
    return Cells(pairs.list.eval(pl.element().filter(has_value)), text)


def _fields(dtype: pl.Struct) -> dict[str, pl.DataType]:
    return {field.name: field.dtype for field in dtype.fields}  # type: ignore[misc]


def _is_text_list(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List) and isinstance(dtype.inner, _TEXT | pl.Null)


def _is_pair_list(dtype: pl.DataType) -> bool:
    if not (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)):
        return False
    fields = _fields(dtype.inner)
    return fields.keys() == {"key", "value"} and all(map(_is_plain, fields.values()))


def _parse_json(
    texts: pl.Expr, parse: Callable[[str], list[Any] | None], dtype: pl.DataType
) -> pl.Expr:
    """Return the result of ``parse`` for each text, as a column of lists."""

    def parse_all(batch: pl.Series) -> pl.Series:
        distinct = batch.drop_nulls().unique()  # many items have one category
        # polars decodes JSON many times faster than it converts dictionaries.
        as_json = pl.Series([_dump(parse(text)) for text in distinct], dtype=pl.String)
        lookup = pl.DataFrame({"text": distinct, "value": as_json.str.json_decode(dtype)})
        rows = batch.to_frame("text").join(lookup, on="text", how="left", maintain_order="left")
        return rows["value"].alias(batch.name)

    return texts.map_batches(parse_all, return_dtype=dtype, is_elementwise=True)


def _dump(values: list[Any] | None) -> str | None:
    """Return values as JSON; None without them, or if they have half a character, as JSON may."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return None if values is None else text


def parse_path(text: str) -> list[str] | None:
    """Return the levels of a category that begins like JSON, None if it cannot be read."""
    try:
        levels = json.loads(text)
    except (ValueError, RecursionError):
        # Lists as Python prints them are not JSON. A level may well begin with a bracket.
        return None if re.match(STRUCTURE, text) else text.split(">")
    if not isinstance(levels, list) or any(isinstance(level, dict | list) for level in levels):
        return None
    return [_written(level) for level in levels if level is not None]


def parse_pairs(text: str) -> list[dict[str, str]] | None:
    """Return the pairs in the text of a flat JSON object, or of a list of ``{"key", "value"}``.

    None if ``text`` is anything else.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(values, list):
        if not all(isinstance(one, dict) and one.keys() == {"key", "value"} for one in values):
            return None
        items = [(one["key"], one["value"]) for one in values]
    elif isinstance(values, dict):
        items = list(values.items())
    else:
        return None
    if any(not isinstance(key, str) or isinstance(value, dict | list) for key, value in items):
        return None
    return [{"key": key, "value": _written(value)} for key, value in items if value is not None]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_WORDS = "text or integers (where numbers have become 17850.0, convert them to integers)"
_READERS: dict[pl.DataType, Reader] = {
    pl.String(): Reader(_read_text, "text or integers"),
    pl.Float64(): Reader(_read_number, "numbers"),
    pl.Boolean(): Reader(_read_flag, "true or false"),
    pl.Datetime("us", "UTC"): Reader(
        _read_time, "date-times, ISO 8601 text, or Unix times of the years 1971 to 2099"
    ),
    PATH: Reader(_read_path, "lists of text, or text such as 'A > B' or a JSON list"),
    PAIRS: Reader(_read_pairs, "maps, flat structs, or JSON objects as text"),
}
_READERS_OF: dict[str, Reader] = {
    "user_id": Reader(_read_ids(clean_ids), _WORDS),
    "item_id": Reader(_read_ids(clean_ids), _WORDS),
    "left": Reader(_read_ids(clean_ids), _WORDS),
    "right": Reader(_read_ids(clean_ids), _WORDS),
    "kind": Reader(_read_ids(clean_words), _WORDS),
    "split": Reader(_read_ids(clean_words), _WORDS),
}


def find_reader(name: str, dtype: pl.DataType) -> Reader:
    """Return how a column of the schema is read, by its name or else by its canonical type."""
    return _READERS_OF.get(name, _READERS[dtype])
