"""NDJSON files: one JSON object a line, every value read as text."""

import glob
import json
import math
import mmap
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.text_files import decode_lines, read_head
from recsys.errors import DataError

_HEAD_LINES = 1_000
_HEAD_BYTES = 4


def scan_ndjson(path: Path, names: Collection[str]) -> pl.LazyFrame:
    """Return the rows of an NDJSON file, every column as text.

    Lists and objects become their JSON text, so the lines of a column may differ in type. A key
    that a line repeats counts once.

    Args:
        path: NDJSON file.
        names: Names of known columns; others are found if one of the first lines has them.

    Raises:
        DataError: If one of the first lines is not a JSON object, or the encoding is not UTF-8.
    """
    read_head(path, _HEAD_BYTES)
    keys = dict.fromkeys(key for row in islice(_objects(path), _HEAD_LINES) for key in row)
    late = (name for name in names if name not in keys and _contains(path, f'"{name}"'))
    schema = dict.fromkeys([*keys, *late], pl.String)
    return pl.scan_ndjson(glob.escape(str(path.absolute())), schema=schema)


def read_ndjson_by_line(path: Path) -> pl.LazyFrame:
    """Return the rows of an NDJSON file, also if it has values that JSON lacks.

    NaN is an empty cell, and other numbers that are not finite are text. Holds the file in memory.

    Raises:
        DataError: If a line is not a JSON object, or not UTF-8; the message has its number.
    """
    rows = list(_objects(path))
    keys = dict.fromkeys(key for row in rows for key in row)
    text = "\n".join(map(json.dumps, rows))
    return pl.scan_ndjson(text.encode(), schema=dict.fromkeys(keys, pl.String))


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(decode_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_constant, parse_float=_number)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"table {path} cannot be read: line {number} is not JSON ({error}); write one "
                "object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"table {path} cannot be read: line {number} must be a JSON object, got "
                f"{type(row).__name__}; write one object a line, as jq -c '.[]' does with a list"
            )
        yield row


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


def _number(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _contains(path: Path, text: str) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text.encode()) >= 0
