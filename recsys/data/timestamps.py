"""Date-times read from text and numbers, and as microseconds."""

from datetime import UTC, datetime, timedelta

import polars as pl

from recsys.errors import InvalidArgumentError
from recsys.schema import EARLIEST_EVENT, LATEST_ITEM

_UTC = pl.Datetime("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# ISO 8601: a date, then optionally a time, then optionally a zone.
_PARTS = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?<clock>\d{2}:\d{2})(?<second>:\d{2}(?:[.,]\d{1,9})?)?"
    r" ?(?<zone>[Zz]|(?<sign>[+-])(?<hours>[01]\d|2[0-3])(?::?(?<minutes>[0-5]\d))?)?)?$"
)


def parse_timestamp(text: pl.Expr) -> pl.Expr:
    """Return ISO 8601 text or Unix times as Datetime("us", "UTC"), null where it is anything else.

    A date alone is its midnight, and a time without a zone is UTC, so a file means the same on
    every machine. Digits beyond the microsecond are cut off. Unix times are read by ``from_unix``.

    Args:
        text: String column, such as ``2026-03-01``, ``2026-03-01 08:30``,
            ``2026-03-01T08:30:00.25+01:00`` or ``1772323200``.
    """
    # As a function of whole columns: polars would match the pattern again for each of its parts.
    return text.map_batches(_parse_all, return_dtype=_UTC, is_elementwise=True)


def _parse_all(texts: pl.Series) -> pl.Series:
    stripped = texts.str.strip_chars().alias("text")
    moments = _parse_iso(stripped)
    if moments.null_count() > texts.null_count():
        numbers = pl.coalesce(
            from_unix(pl.col("text").cast(dtype, strict=False)) for dtype in (pl.Int64, pl.Float64)
        )
        others = stripped.zip_with(moments.is_null(), pl.Series([None], dtype=pl.String))
        moments = moments.zip_with(
            moments.is_not_null(), others.to_frame("text").select(numbers).to_series()
        )
    return moments.alias(texts.name)


def _parse_iso(texts: pl.Series) -> pl.Series:
    parts = texts.str.extract_groups(_PARTS).struct.unnest()
    clock = pl.concat_str(
        pl.col("clock").fill_null("00:00"),
        pl.col("second").str.replace(",", ".", literal=True).fill_null(":00"),
    )
    # Parts are null where the text did not match, and a null date makes the whole text null.
    local = pl.concat_str("date", pl.lit("T"), clock).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False
    )
    minutes = pl.col("hours").cast(pl.Int64) * 60 + pl.col("minutes").cast(pl.Int64).fill_null(0)
    east = pl.when(pl.col("sign") == "-").then(-minutes).otherwise(minutes).fill_null(0)
    moment = (local - pl.duration(minutes=east)).dt.replace_time_zone("UTC")
    return parts.select(moment).to_series()


def from_unix(number: pl.Expr) -> pl.Expr:
    """Return Unix times as Datetime("us", "UTC"), null where a number is not one.

    Seconds, milliseconds, microseconds and nanoseconds of the years 1971 to 2099 cannot be mistaken
    for each other, so the unit of each number is sure. Digits beyond the microsecond are cut off.

    Args:
        number: Int64 or Float64 column.
    """
    first, last = (int(moment.timestamp()) for moment in (EARLIEST_EVENT, LATEST_ITEM))
    time_us = pl.lit(None, dtype=pl.Int64)
    for per_second in (1, 1_000, 1_000_000, 1_000_000_000):
        is_unit = number.is_between(first * per_second, last * per_second, closed="left")
        # Beyond this unit's range the product may overflow, and is not taken.
        converted = (
            number * (1_000_000 // per_second) if per_second <= 1_000_000 else number // 1_000
        )
        time_us = pl.when(is_unit).then(converted.cast(pl.Int64, strict=False)).otherwise(time_us)
    return time_us.cast(_UTC)


def date_bounds(dtype: pl.Datetime | pl.Date) -> tuple[int, int]:
    """Return the integers that are stored for the second days of the years 1 and 9999.

    A time zone can move a moment by a day, and Python knows no other years.
    """
    second = timedelta(seconds=1)
    first, last = ((datetime(year, 1, 2, tzinfo=UTC) - _EPOCH) // second for year in (1, 9999))
    if isinstance(dtype, pl.Date):
        return first // 86_400, last // 86_400
    per_second = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[dtype.time_unit]
    limit = 2**63 - 1  # nanoseconds cannot leave these years
    return max(first * per_second, -limit), min(last * per_second, limit)


def to_us(name: str, moment: datetime | None) -> int:
    """Return a moment as microseconds since 1970-01-01 UTC; the time now if None.

    Args:
        name: Name of the argument in the error message.
        moment: Date-time with a time zone.

    Raises:
        InvalidArgumentError: If the moment has no time zone: which one it means would be a guess.
    """
    if moment is None:
        moment = datetime.now(UTC)
    if moment.tzinfo is None:
        raise InvalidArgumentError(
            f"{name} must have a time zone, got {moment!r}; use datetime.now(UTC)"
        )
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(time_us: int) -> datetime:
    """Return microseconds since 1970-01-01 UTC as a date-time with that zone."""
    return _EPOCH + timedelta(microseconds=time_us)
