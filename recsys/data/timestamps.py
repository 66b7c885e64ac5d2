"""Date-times read from text, and as microseconds."""

from datetime import UTC, datetime, timedelta

import polars as pl

from recsys.errors import InvalidArgumentError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# ISO 8601: a date, then optionally a time, then optionally a zone.
_PARTS = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?<clock>\d{2}:\d{2})(?<second>:\d{2}(?:[.,]\d{1,9})?)?"
    r" ?(?<zone>[Zz]|(?<sign>[+-])(?<hours>[01]\d|2[0-3])(?::?(?<minutes>[0-5]\d))?)?)?$"
)


def parse_timestamp(text: pl.Expr) -> pl.Expr:
    """Return ISO 8601 text as Datetime("us", "UTC"), null where it is anything else.

    A date alone is its midnight, and a time without a zone is UTC, so a file means the same on
    every machine. Digits beyond the microsecond are cut off.

    Args:
        text: String column, such as ``2026-03-01``, ``2026-03-01 08:30`` or
            ``2026-03-01T08:30:00.25+01:00``.
    """
    parts = text.str.strip_chars().str.extract_groups(_PARTS)

    def part(name: str) -> pl.Expr:
        return parts.struct.field(name)

    clock = pl.concat_str(
        part("clock").fill_null("00:00"),
        part("second").str.replace(",", ".", literal=True).fill_null(":00"),
    )
    # Parts are null where the text did not match, and a null date makes the whole text null.
    local = pl.concat_str(part("date"), pl.lit("T"), clock).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False
    )
    minutes = part("hours").cast(pl.Int64) * 60 + part("minutes").cast(pl.Int64).fill_null(0)
    east = pl.when(part("sign") == "-").then(-minutes).otherwise(minutes).fill_null(0)
    return (local - pl.duration(minutes=east)).dt.replace_time_zone("UTC")


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
