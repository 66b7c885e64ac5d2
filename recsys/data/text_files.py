"""Text files of tables: their bytes, their encoding and their lines."""

import gzip
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from recsys.errors import DataError

_GZIP = b"\x1f\x8b"
_MARK = "\ufeff"  # byte order mark, which programs on Windows write first
# The longer marks come first: that of UTF-32 begins like that of UTF-16.
_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def open_bytes(path: Path) -> IO[bytes]:
    """Return an open file, decompressed if it is gzipped."""
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


def read_head(path: Path, n_bytes: int) -> str:
    """Return the text at the beginning of a file, without a byte order mark.

    Raises:
        DataError: If the text is UTF-16 or UTF-32.
    """
    with open_bytes(path) as file:
        head = file.read(n_bytes)
    if encoding := _wide_encoding(head):
        raise DataError(
            f"table {path} must be UTF-8, got {encoding}; {_conversion(path, encoding)}"
        )
    return head.decode("utf-8", errors="replace").removeprefix(_MARK)


def decode_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their ends, without a byte order mark.

    Raises:
        DataError: If a line is not UTF-8; the message has its number and a command that converts.
    """
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"table {path} must be UTF-8, got the byte 0x{line[error.start]:02x} in line "
                    f"{number}; if a program on Windows wrote it, "
                    f"{_conversion(path, 'WINDOWS-1252')}"
                ) from error
            yield text.removeprefix(_MARK) if number == 1 else text


def _wide_encoding(head: bytes) -> str | None:
    """Return the encoding of text with two or four bytes a character, None for other text."""
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None or head[:2].count(0) != 1:
        return marked
    return "UTF-16BE" if head[0] == 0 else "UTF-16LE"


def _conversion(path: Path, encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    name = path.name.removesuffix(".gz")
    stem, dot, suffix = name.rpartition(".")
    out = path.with_name(f"{stem}.utf8{dot}{suffix}")
    convert = f"iconv -f {encoding} -t UTF-8"
    if name != path.name:
        return f"convert it: gzip -dc {_quoted(path)} | {convert} > {_quoted(out)}"
    return f"convert it: {convert} {_quoted(path)} > {_quoted(out)}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
