"""CSV files: their separator and quotes, and the line at which one is damaged."""

import codecs
import csv
import io
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys.data.text_files import decode_lines, open_bytes, read_head
from recsys.errors import DataError

logger = logging.getLogger(__name__)

_SEPARATORS = ",;\t|"
_HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_QUOTE = ord('"')


class Dialect(NamedTuple):
    """How a CSV file is written.

    Args:
        separator: Character between two cells.
        line_end: Character at the end of a line; before a line feed there may be another.
        n_skipped: Number of lines before the header.
    """

    separator: str
    line_end: str
    n_skipped: int


def scan_csv(path: Path, names: Collection[str]) -> pl.LazyFrame:
    """Return the rows of a CSV file, every column as text.

    The separator is a comma, semicolon, tab or bar: the one that finds most of the known columns in
    the header. Quotes that break the rules (RFC 4180) make the file be read by line.

    Args:
        path: CSV file, gzipped or not.
        names: Names of known columns.

    Raises:
        DataError: As for ``read_csv_by_line``, and if the encoding is not UTF-8.
    """
    dialect = find_dialect(path, names)
    if not has_regular_quotes(path, dialect.separator):
        logger.warning("%s has quotes inside cells; they are read as they stand", path)
        return read_csv_by_line(path, names)
    # Every column stays text: inference would turn the item id "00123" into the number 123.
    return pl.scan_csv(
        path.absolute(),
        glob=False,
        infer_schema=False,
        separator=dialect.separator,
        eol_char=dialect.line_end,
        skip_lines=dialect.n_skipped,
    )


def find_dialect(path: Path, names: Collection[str]) -> Dialect:
    """Return how a CSV file is written, as its header shows.

    Args:
        path: CSV file, gzipped or not.
        names: Names of known columns.

    Raises:
        DataError: If the text is UTF-16 or UTF-32.
    """
    head = read_head(path, _HEAD_BYTES)
    line_end = "\r" if "\r" in head and "\n" not in head else "\n"
    header = head.partition(line_end)[0].rstrip("\r")
    if declared := re.fullmatch(r"sep=(.)", header):  # Excel's own first line
        return Dialect(declared[1], line_end, 1)

    def found(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=separator), [])
        return len({cell.strip().lower() for cell in cells} & set(names)), len(cells)

    return Dialect(max(_SEPARATORS, key=found), line_end, 0)


def has_regular_quotes(path: Path, separator: str) -> bool:
    """Return whether every quote opens a cell, closes one, or is doubled inside one.

    polars reads a file with other quotes in its own way, which may join rows without a word.

    Args:
        path: CSV file, gzipped or not.
        separator: Character between two cells.
    """
    edges = [ord(separator), *b"\r\n", _QUOTE]  # next to a quote; two quotes are a doubled one
    opens, last = True, ord("\n")  # whether the next quote opens a cell, and the byte before
    with open_bytes(path) as file:
        chunk = file.read(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
        while chunk:
            while chunk[-1] == _QUOTE and (more := file.read(1)):  # what follows it decides
                chunk += more
            if _QUOTE in chunk:
                text = np.frombuffer(bytes([last]) + chunk + b"\n", dtype=np.uint8)
                quotes = np.flatnonzero(text == _QUOTE)
                before, after = text[quotes[not opens :: 2] - 1], text[quotes[opens::2] + 1]
                if not (np.isin(before, edges).all() and np.isin(after, edges).all()):
                    return False
                opens ^= len(quotes) % 2 == 1
            last = chunk[-1]
            chunk = file.read(_CHUNK_BYTES)
    return opens


def read_csv_by_line(path: Path, names: Collection[str]) -> pl.LazyFrame:
    """Return the rows of a CSV file in which a cell may have quotes that are not doubled.

    A quote inside a cell that does not begin with one stands for itself. Cells may begin with a
    word in quotes if no line has a separator or line end inside quotes. Holds the file in memory.

    Args:
        path: CSV file, gzipped or not.
        names: Names of known columns.

    Raises:
        DataError: If a line can be read in several ways, has more cells than the header, or is not
            UTF-8; the message has its number.
    """
    separator, _, n_skipped = find_dialect(path, names)
    lines = list(decode_lines(path))[n_skipped:]
    escaped = _find_backslash(lines, separator)
    if escaped is not None:
        raise DataError(
            f"table {path} cannot be read: line {escaped + n_skipped + 1} has a quote after a "
            'backslash inside a quoted cell; double the quote instead: "24"" shelf"'
        )
    try:
        rows = _quoted_rows(lines, separator)
    except _LineError as error:
        plain = _plain_rows(lines, separator)
        if plain is None:
            number = error.number + n_skipped
            raise DataError(f"table {path} cannot be read: line {number} {error}") from error
        rows = plain
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(rows)
    return pl.scan_csv(text.getvalue().encode(), infer_schema=False, separator=separator)


class _LineError(Exception):
    """What is wrong with a line, and its number."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def _find_backslash(lines: Iterable[str], separator: str) -> int | None:
    """Return the index of a line with a quoted cell that goes on after a backslash and a quote.

    In CSV a backslash is a character like any other (RFC 4180, pandas, Excel), so the quote after
    it ends the cell. Whoever wrote more behind it meant a quote of the text.
    """
    comma = re.escape(separator)
    goes_on = re.compile(
        rf'(?:^|{comma})"(?:[^"]|"")*?\\"(?:[^"{comma}\r\n]|{comma}[^"]*"(?:{comma}|[\r\n]|$))'
    )
    return next((index for index, line in enumerate(lines) if goes_on.search(line)), None)


def _quoted_rows(lines: Iterable[str], separator: str) -> list[list[str]]:
    """Return the cells of every row, where quoted cells keep to the rules.

    Raises:
        _LineError: If a quote neither opens nor closes a cell, or a row has too many cells.
    """
    reader = csv.reader(lines, delimiter=separator, strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if rows and len(row) > len(rows[0]):
                raise _LineError(
                    reader.line_num,
                    f"has {len(row)} cells, the header has {len(rows[0])}; put cells that contain "
                    f"{separator!r} in quotes",
                )
            rows.append(row)
    except csv.Error as error:
        raise _LineError(
            reader.line_num,
            f"has a quote that neither opens nor closes a cell ({error}); put the cell in quotes, "
            'and double the quotes in it: "24"" shelf"',
        ) from error
    return rows


def _plain_rows(lines: Sequence[str], separator: str) -> list[list[str]] | None:
    """Return the cells of every row, or None if quotes may hide a separator or a line end."""
    rows = [line.rstrip("\r\n").split(separator) for line in lines]
    for row in rows:
        # A lone quote at the beginning could open a cell that ends in a later line.
        opened = any(cell[:1] == '"' and cell.count('"') == 1 for cell in row)
        if opened or len(row) != len(rows[0]):
            return None
    return [[_unquoted(cell) for cell in row] for row in rows]


def _unquoted(cell: str) -> str:
    """Return a cell without the quotes around it, if it is wholly and properly quoted."""
    inside = cell[1:-1].replace('""', "")
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inside
    return cell[1:-1].replace('""', '"') if is_quoted else cell
