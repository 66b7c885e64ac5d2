from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.timestamps import from_us, parse_timestamp, to_us

EAST = timezone(timedelta(hours=2))

MOMENTS = st.builds(
    lambda moment, offset: moment.replace(tzinfo=offset),
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)),
    st.none()
    | st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda east: timezone(timedelta(minutes=east))),
)


def parse(*texts: str | None) -> list[datetime | None]:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    return frame.select(moment=parse_timestamp(pl.col("text")))["moment"].to_list()


@settings(deadline=None)
@given(
    moment=MOMENTS,
    separator=st.sampled_from(["T", " "]),
    precision=st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]),
)
def test_it_reads_what_the_standard_library_writes(
    moment: datetime, separator: str, precision: str
) -> None:
    text = moment.isoformat(separator, precision)

    wanted = datetime.fromisoformat(text)
    wanted = wanted.replace(tzinfo=UTC) if wanted.tzinfo is None else wanted.astimezone(UTC)
    assert parse(text) == [wanted]


@settings(deadline=None)
@given(st.text(max_size=30))
def test_it_never_raises_and_reads_only_what_the_standard_library_reads(text: str) -> None:
    (moment,) = parse(text)

    if moment is not None:
        assert datetime.fromisoformat(text.strip().replace(",", ".")[:10])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T08:30:00Z", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        (" 2026-03-01 08:30 ", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("2026-03-01T00:30:00+0100", datetime(2026, 2, 28, 23, 30, tzinfo=UTC)),
        ("2026-03-01T00:30:00-05", datetime(2026, 3, 1, 5, 30, tzinfo=UTC)),
        ("2026-03-01T00:30:00 +05:30", datetime(2026, 2, 28, 19, 0, tzinfo=UTC)),
        ("2026-03-01T00:00:00,25", datetime(2026, 3, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01T00:00:00.123456789", datetime(2026, 3, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
        ("1772323200", datetime(2026, 3, 1, tzinfo=UTC)),
        ("1772323200.25", datetime(2026, 3, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        (" 1772323200123 ", datetime(2026, 3, 1, 0, 0, 0, 123_000, tzinfo=UTC)),
        ("1772323200123456", datetime(2026, 3, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
        ("1772323200123456789", datetime(2026, 3, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_common_spellings(text: str, wanted: datetime) -> None:
    assert parse(text) == [wanted]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-02-30",
        "2026-13-01",
        "01/03/2026",
        "2026-03-01T25:00",
        "2026-03-01+01:00",
        "2026-03-01T00:00+24:00",
        "1772323",
        "20260301",
        "1e400",
        "nan",
        None,
    ],
)
def test_anything_else_is_null(text: str | None) -> None:
    assert parse(text) == [None]


def test_spellings_may_be_mixed_in_one_column() -> None:
    moments = parse("2026-03-01", "x", "2026-03-01T01:00+01:00")

    assert moments == [datetime(2026, 3, 1, tzinfo=UTC), None, datetime(2026, 3, 1, tzinfo=UTC)]


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.sampled_from([UTC, EAST]))
)
def test_a_moment_survives_as_microseconds(moment: datetime) -> None:
    assert from_us(to_us("moment", moment)) == moment


def test_microseconds_count_from_1970() -> None:
    assert to_us("moment", datetime(1970, 1, 2, 1, tzinfo=EAST)) == 86_400_000_000 - 3_600_000_000


def test_no_moment_is_now() -> None:
    before = datetime.now(UTC)
    assert before <= from_us(to_us("now", None)) <= datetime.now(UTC)


def test_a_moment_without_a_zone_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="now must have a time zone"):
        to_us("now", datetime(2025, 1, 1))
