"""Bring a table, as somebody stored it, into the canonical columns and types."""

import difflib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import dataframely as dy
import polars as pl

from recsys.data.timestamps import parse_timestamp
from recsys.errors import SchemaError

logger = logging.getLogger(__name__)

REFUSED = "|refused"  # suffix of the column with the text of cells that could not be read
PAIRS = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))
# What a missing column or an empty cell stands for; elsewhere it is null.
_DEFAULTS: dict[str, pl.Expr] = {
    "category": pl.lit([], dtype=pl.List(pl.String)),
    "attributes": pl.lit([], dtype=PAIRS),
    "available": pl.lit(True),
    "quantity": pl.lit(1.0),
}
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Cell(NamedTuple):
    """A column in its canonical type, and the text of the cells that do not fit it."""

    value: pl.Expr
    refused: pl.Expr | None = None


def coerce(frame: pl.LazyFrame, schema: type[dy.Schema], *, table: str | Path) -> pl.LazyFrame:
    """Return the canonical columns of ``frame`` and, per column whose cells may not fit, a refusal.

    Optional columns that are missing get their defaults; columns outside the schema are dropped.
    Nothing is read yet. A cell that does not fit its column becomes null or the default, and its
    text is kept in ``<column>|refused``, so that the row can be quarantined.

    Args:
        frame: Rows as they are stored.
        schema: One of ``recsys.schema``.
        table: What errors call the table.

    Raises:
        SchemaError: Lists every required column that is missing and every type that cannot be
            brought to the canonical one.
    """
    stored = frame.collect_schema()
    problems = []
    columns: list[pl.Expr] = []
    for name, column in schema.columns().items():
        default = _DEFAULTS.get(name, pl.lit(None, dtype=column.dtype))
        if name not in stored:
            if not column.nullable and name not in _DEFAULTS:
                problems.append(f"column {name!r} is missing{_hint(name, stored, schema)}")
            elif hint := _hint(name, stored, schema):
                logger.warning("%s has no column %r%s", table, name, hint)
            columns.append(default.alias(name))
            continue
        reader = _READERS[column.dtype]
        cell = reader.read(name, stored[name])
        if cell is None:
            problems.append(f"column {name!r} must hold {reader.wants}, got {stored[name]}")
            continue
        columns.append(cell.value.fill_null(default).alias(name))
        if cell.refused is not None:
            columns.append(cell.refused.alias(name + REFUSED))
    if problems:
        raise SchemaError(f"{table}: {'; '.join(problems)}; it has the columns {list(stored)}")
    return frame.select(columns)


def _hint(name: str, stored: Iterable[str], schema: type[dy.Schema]) -> str:
    unused = {column.lower(): column for column in stored if column not in schema.columns()}
    near = difflib.get_close_matches(name, unused, n=1, cutoff=0.75)
    return f", {unused[near[0]]!r} looks like it: rename it" if near else ""


def _is_text(dtype: pl.DataType) -> bool:
    return dtype.base_type() in (pl.String, pl.Categorical, pl.Enum)


def _text_of(name: str) -> pl.Expr:
    """Return a column as text, null where it is blank."""
    text = pl.col(name).cast(pl.String)
    return pl.when(text.str.strip_chars() != "").then(text)


def _parsed(name: str, parse: Callable[[pl.Expr], pl.Expr]) -> Cell:
    text = _text_of(name)
    value = parse(text.str.strip_chars())
    return Cell(value, pl.when(value.is_null()).then(text))


def _read_text(name: str, dtype: pl.DataType) -> Cell | None:
    # Floats are refused: an id column that was once read as numbers would become "17850.0".
    known = _is_text(dtype) or dtype.is_integer() or dtype == pl.Null
    return Cell(_text_of(name)) if known else None


def _read_number(name: str, dtype: pl.DataType) -> Cell | None:
    if _is_text(dtype):
        return _parsed(name, lambda text: text.cast(pl.Float64, strict=False))
    known = dtype.is_numeric() or dtype == pl.Null
    return Cell(pl.col(name).cast(pl.Float64)) if known else None


def _read_flag(name: str, dtype: pl.DataType) -> Cell | None:
    if dtype in (pl.Boolean, pl.Null):
        return Cell(pl.col(name).cast(pl.Boolean))

    def parse(text: pl.Expr) -> pl.Expr:
        return text.str.to_lowercase().replace_strict(
            _FLAGS, default=None, return_dtype=pl.Boolean
        )

    return _parsed(name, parse) if _is_text(dtype) or dtype.is_integer() else None


def _read_time(name: str, dtype: pl.DataType) -> Cell | None:
    if _is_text(dtype):
        return _parsed(name, parse_timestamp)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return Cell(pl.col(name).dt.convert_time_zone("UTC").dt.cast_time_unit("us"))
    if dtype.base_type() in (pl.Datetime, pl.Date, pl.Null):
        naive = pl.col(name).cast(pl.Datetime("us"))
        return Cell(naive.dt.replace_time_zone("UTC"))
    return None


def _read_path(name: str, dtype: pl.DataType) -> Cell | None:
    if _is_text(dtype):
        parts = _text_of(name).str.split(">")
    elif dtype == pl.Null:
        return Cell(pl.lit(None, dtype=pl.List(pl.String)))
    elif isinstance(dtype, pl.List) and (_is_text(inner_of(dtype)) or inner_of(dtype) == pl.Null):
        parts = pl.col(name).cast(pl.List(pl.String))
    else:
        return None
    trimmed = parts.list.eval(pl.element().str.strip_chars())
    return Cell(trimmed.list.eval(pl.element().filter(pl.element() != "")))


def _read_pairs(name: str, dtype: pl.DataType) -> Cell | None:
    """Read a JSON object, a struct, a map, or the list of pairs that Parquet stores maps as."""
    if _is_text(dtype):
        return _parsed(name, lambda text: text.map_batches(_json_pairs, return_dtype=PAIRS))
    if dtype == pl.Null:
        return Cell(pl.lit(None, dtype=PAIRS))
    if isinstance(dtype, pl.Map):
        pairs = pl.col(name).cast(PAIRS)
    elif isinstance(dtype, pl.Struct):
        if not all(_is_plain(field.dtype) for field in dtype.fields):
            return None
        struct = pl.col(name).struct
        pairs = pl.concat_list(
            pl.struct(key=pl.lit(field.name), value=struct.field(field.name).cast(pl.String))
            for field in dtype.fields
        )
    elif _is_pair_list(dtype):
        pairs = pl.col(name).cast(PAIRS)
    else:
        return None
    # What has no value is not an attribute: NDJSON gives every row the fields of all rows.
    value = pl.element().struct.field("value")
    return Cell(pairs.list.eval(pl.element().filter(value.is_not_null())))


def _is_plain(dtype: pl.DataType) -> bool:
    return _is_text(dtype) or dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)


def _is_pair_list(dtype: pl.DataType) -> bool:
    if not (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)):
        return False
    fields = {field.name: field.dtype for field in dtype.inner.fields}
    return fields.keys() == {"key", "value"} and all(map(_is_plain, fields.values()))


def _json_pairs(texts: pl.Series) -> pl.Series:
    return pl.Series(texts.name, [_parse_pairs(text) for text in texts], dtype=PAIRS)


def _parse_pairs(text: str | None) -> list[dict[str, str]] | None:
    """Return the pairs of a flat JSON object, None where the text is anything else."""
    try:
        values = json.loads(text or "null")
    except ValueError:
        return None
    if not isinstance(values, dict) or any(isinstance(v, dict | list) for v in values.values()):
        return None
    return [
        {"key": key, "value": value if isinstance(value, str) else json.dumps(value)}
        for key, value in values.items()
        if value is not None
    ]


class _Reader(NamedTuple):
    read: Callable[[str, pl.DataType], Cell | None]
    wants: str


_READERS: dict[pl.DataType, _Reader] = {
    pl.String(): _Reader(_read_text, "text or integers"),
    pl.Float64(): _Reader(_read_number, "numbers"),
    pl.Boolean(): _Reader(_read_flag, "true or false"),
    pl.Datetime("us", "UTC"): _Reader(
        _read_time, "date-times or ISO 8601 text (convert Unix seconds with polars.from_epoch)"
    ),
    pl.List(pl.String()): _Reader(_read_path, "lists of text, or text such as 'A > B'"),
    PAIRS: _Reader(_read_pairs, "maps of text, flat structs, or JSON objects as text"),
}
