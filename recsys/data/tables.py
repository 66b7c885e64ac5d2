"""Where tables are: DataFrames, or Parquet, CSV and NDJSON files, which are read lazily."""

import csv
import glob
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from recsys.data.frames import Frame, describe_type
from recsys.errors import DataError, InvalidArgumentError

Source = str | Path | Sequence[str | Path]  # a path, a glob, or a list of them


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of one shop, each as files or as a DataFrame: ``Tables(items=df, events=df)``.

    Files are Parquet, CSV or NDJSON: a path, a glob, or a list of them. DataFrames are of polars,
    pandas, or any library with the Arrow interface. Both are validated in the same way.

    Args:
        items: Items table.
        events: Events table, None if the shop has none.
        photos: Customers' photos table, None if the shop has none.
        images_root: Folder that picture paths are relative to. None takes the folder of the first
            items file; beside a DataFrame of items with pictures it must be given.
        as_of: Time at which the items were exported, with a time zone. None takes the time at which
            the newest items file was written; for a DataFrame, the time of training. A live change
            of an item counts if it is later.

    Raises:
        InvalidArgumentError: If a table is neither files nor a DataFrame.
    """

    items: Source | Frame
    events: Source | Frame | None = None
    photos: Source | Frame | None = None
    images_root: str | Path | None = None
    as_of: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("items", "events", "photos"):
            table = getattr(self, name)
            optional = table is None and name != "items"
            if not optional and not isinstance(table, str | Path | Sequence | Frame):
                raise InvalidArgumentError(
                    f"{name} must be a path, a glob, a list of them, or a DataFrame of polars, "
                    "pandas or another library with the Arrow interface, got "
                    f"{describe_type(table)}"
                )


def _scan_csv(path: Path) -> pl.LazyFrame:
    # Every column stays text: inference would turn the item id "00123" into the number 123.
    return pl.scan_csv(path, infer_schema=False)


def _scan_ndjson(path: Path) -> pl.LazyFrame:
    # The schema comes from all lines, because a late line may have an attribute of its own.
    return pl.scan_ndjson(path, infer_schema_length=None)


_DAMAGE = (
    pl.exceptions.PolarsError,
    OSError,
    EOFError,
    UnicodeDecodeError,
    csv.Error,
    zlib.error,
)
_READERS: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": pl.scan_parquet,
    ".pq": pl.scan_parquet,
    ".csv": _scan_csv,
    ".csv.gz": _scan_csv,
    ".ndjson": _scan_ndjson,
    ".jsonl": _scan_ndjson,
}


def find_files(source: Source) -> list[Path]:
    """Return the files that ``source`` names; the files of a glob are sorted.

    Raises:
        DataError: If a name matches no file, or the list is empty.
    """
    if not isinstance(source, str | Path):
        if not source:
            raise DataError("a table must have at least one file, got an empty list")
        return [path for one in source for path in find_files(one)]
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        raise DataError(
            f"a table must be a file or a glob, got folder {path}; try {path}/*.parquet"
        )
    paths = [path] if path.is_file() else [Path(name) for name in sorted(_glob(path))]
    if not paths:
        raise DataError(f"a table must be an existing file or a glob, nothing matches {path}")
    return paths


def _glob(path: Path) -> list[str]:
    return [name for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]


def scan_file(path: Path) -> pl.LazyFrame:
    """Return the rows of one file as they are stored. Every column of a CSV is text.

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
        frame = reader(path)
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
