"""DataFrames of other libraries, read through the Arrow interface that they share."""

from typing import Protocol, runtime_checkable

import polars as pl

from recsys.errors import InvalidArgumentError, MissingExtraError, SchemaError


@runtime_checkable
class Frame(Protocol):
    """A DataFrame of polars, of pandas 2.2 or later, or of any library with the Arrow interface.

    See https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows as an Arrow stream."""


def to_polars(frame: Frame, *, table: str) -> pl.DataFrame:
    """Return a DataFrame of any library as a polars DataFrame.

    An index of pandas that has a name becomes a column, and missing values of pandas become null.

    Args:
        frame: Rows of one table.
        table: Name of the table in error messages.

    Raises:
        InvalidArgumentError: If ``frame`` is not a DataFrame.
        SchemaError: If a column mixes types, or two columns have one name.
        MissingExtraError: If pandas needs pyarrow, which is not installed.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if not isinstance(frame, Frame):
        raise InvalidArgumentError(
            f"{table} must be a DataFrame of polars, pandas or another library with the Arrow "
            f"interface, got {describe_type(frame)}"
        )
    try:
        return pl.DataFrame(_Stream(frame))
    except ImportError as error:
        raise MissingExtraError(
            f"{table} of {type(frame).__module__.partition('.')[0]} needs pyarrow ({error}): "
            "pip install pyarrow"
        ) from error
    # Each library raises its own errors here; those of pyarrow derive from these.
    except (ValueError, TypeError, NotImplementedError, pl.exceptions.PolarsError) as error:
        reason = "; ".join(str(part) for part in error.args)
        raise SchemaError(f"{table} cannot be read as an Arrow table ({reason})") from error


def describe_type(table: object) -> str:
    """Return the type of what was passed as a table, with the fix for a frame that is lazy."""
    hint = "; call .collect() first" if isinstance(table, pl.LazyFrame) else ""
    return type(table).__name__ + hint


class _Stream:
    """A DataFrame without its other methods, so that polars reads pandas as any other library."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)
