"""Where tables are: DataFrames, or Parquet, CSV and NDJSON files, which are read lazily."""

import csv
import difflib
import glob
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from recsys.data.delimited import read_csv_by_line, scan_csv
from recsys.data.frames import Frame, describe_type
from recsys.data.ndjson import read_ndjson_by_line, scan_ndjson
from recsys.errors import DataError, InvalidArgumentError

Source = str | Path | Sequence[str | Path]  # a path, a glob, or a list of them


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of one shop, each as files or as a DataFrame: ``Tables(items=df, events=df)``.

    Files are Parquet, CSV or NDJSON: a path, a glob, or a list of them. DataFrames are of polars,
    pandas, or any library with the Arrow interface. Both are validated in the same way.

    Args:
        items: Items table; None if the shop has labelled photos alone.
        events: Events table, None if the shop has none.
        photos: Customers' photos table, None if the shop has none.
        images_root: Folder that picture paths are relative to. None takes the folder of the first
            file of items, or of photos without items; beside a DataFrame with pictures it must be
            given.
        as_of: Time at which the items were exported, with a time zone. None takes the time at which
            the newest items file was written; for a DataFrame, the time of training. A live change
            of an item counts if it is later.
        relations: Table of items that go together, None if the shop has none.

    Raises:
        InvalidArgumentError: If a table is neither files nor a DataFrame, or ``items`` is missing
            beside events or relations, or without photos.
    """

    items: Source | Frame | None = None
    events: Source | Frame | None = None
    photos: Source | Frame | None = None
    images_root: str | Path | None = None
    as_of: datetime | None = None
    relations: Source | Frame | None = None

    def __post_init__(self) -> None:
        for name in ("items", "events", "photos", "relations"):
            table = getattr(self, name)
            if table is None or isinstance(table, Frame):
                continue
            wrong = [one for one in _listed(table) if not isinstance(one, str | Path)]
            if wrong:
                place = "" if wrong[0] is table else " in a list"
                raise InvalidArgumentError(
                    f"{name} must be a path, a glob, a list of them, or a DataFrame of polars, "
                    "pandas or another library with the Arrow interface, got "
                    f"{describe_type(wrong[0])}{place}"
                )
        others = [name for name in ("events", "relations") if getattr(self, name) is not None]
        if self.items is None and (others or self.photos is None):
            raise InvalidArgumentError(
                f"items must be a table{' where there are ' if others else ''}"
                f"{' and '.join(others)}, got none; only labelled photos can stand alone"
            )


def _listed(table: object) -> list[object]:
    """Return what a list holds, and the lists in it; anything else as the only entry of one."""
    if isinstance(table, str | bytes) or not isinstance(table, Sequence):
        return [table]
    return [file for one in table for file in _listed(one)]


def _scan_parquet(path: Path, names: Collection[str]) -> pl.LazyFrame:
    return pl.scan_parquet(path.absolute(), glob=False)


_DAMAGE = (
    pl.exceptions.PolarsError,
    OSError,
    EOFError,
    UnicodeDecodeError,
    csv.Error,
    zlib.error,
)
_Reader = Callable[[Path, Collection[str]], pl.LazyFrame]
_READERS: dict[str, _Reader] = {
    ".parquet": _scan_parquet,
    ".pq": _scan_parquet,
    ".csv": scan_csv,
    ".csv.gz": scan_csv,
    ".ndjson": scan_ndjson,
    ".jsonl": scan_ndjson,
}
_BY_LINE: dict[_Reader, _Reader] = {
    scan_csv: read_csv_by_line,
    scan_ndjson: lambda path, names: read_ndjson_by_line(path),
}


def find_files(source: Source) -> list[Path]:
    """Return the files that ``source`` names; the files of a glob are sorted.

    A name that exists is a name, also with brackets, stars or a tilde. Otherwise a leading ``~`` is
    the home folder, and what follows the last folder that exists is a pattern.

    Raises:
        DataError: If a name matches no file, or the list is empty.
    """
    if not isinstance(source, str | Path):
        if not source:
            raise DataError("a table must have at least one file, got an empty list")
        return [path for one in source for path in find_files(one)]
    with reading(source):  # a folder on the way may be forbidden
        path = Path(source)
        if path.parts and not Path(path.parts[0]).exists():
            path = Path(os.path.expanduser(source))
        if path.is_dir():
            raise DataError(
                f"a table must be a file or a glob, got folder {path}; try {path}/*.parquet"
            )
        paths = [path] if path.is_file() else _glob(path)
        if not paths:
            hint = _nearest(path)
            raise DataError(
                f"a table must be an existing file or a glob, nothing matches {path}{hint}"
            )
        return paths


def _glob(path: Path) -> list[Path]:
    folder = next(one for one in [*path.parents, Path()] if one.is_dir())
    names = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
    return [file for name in sorted(names) if (file := folder / name).is_file()]


def _nearest(path: Path) -> str:
    """Return a hint at the name in the same folder that is most like the one of ``path``."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(path.name.lower(), lower, n=1, cutoff=0.8)
    return f"; did you mean {lower[near[0]]}?" if near else ""


def scan_file(path: Path, names: Collection[str] = (), *, by_line: bool = False) -> pl.LazyFrame:
    """Return the rows of one file as they are stored. Every column of CSV and NDJSON is text.

    Args:
        path: Parquet, CSV or NDJSON file.
        names: Names of the columns that will be read.
        by_line: Whether to read CSV and NDJSON line by line, which is slow, reads more than polars
            does, and names the line that cannot be read.

    Raises:
        DataError: If the format is unknown or the file is damaged.
    """
    with reading(path):
        reader = next(
            (reader for suffix, reader in _READERS.items() if path.name.lower().endswith(suffix)),
            None,
        )
        if reader is None:
            raise DataError(f"a table must end in one of {', '.join(_READERS)}, got {path}")
        if path.stat().st_size == 0:
            raise DataError(f"table {path} must hold rows, but the file is empty")
        if by_line:
            reader = _BY_LINE.get(reader, reader)
        frame = reader(path, names)
        frame.collect_schema()  # opens the file: damage shows here, with its name
        return frame


@contextmanager
def reading(table: str | Path) -> Iterator[None]:
    """Turn an error that is raised while ``table`` is read into a DataError.

    Raises:
        DataError: If the file is damaged or cannot be read.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"table {table} cannot be read ({reason}); write it again") from error
