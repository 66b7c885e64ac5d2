import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.amounts import parse_amount, parse_amounts


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1,50", 1.5),
        ("0,500", 0.5),
        ("1234,567", 1234.567),
        ("1.234,56", 1234.56),
        ("1,234.56", 1234.56),
        ("1,234,567", 1_234_567.0),
        ("1.234.567", 1_234_567.0),
        ("12,34,567.89", 1_234_567.89),
        ("1 234,56", 1234.56),
        ("1\u202f234", 1234.0),
        ("1'234.50", 1234.5),
        ("1’234", 1234.0),
        ("€ 12", 12.0),
        ("$1,234.56", 1234.56),
        ("1.234,56 €", 1234.56),
        ("USD 5", 5.0),
        ("5 kr", 5.0),
        ("Rs. 12,345.00", 12345.0),
        ("-5,5", -5.5),
        ("€-5", -5.0),
        ("−5", -5.0),
    ],
)
def test_amounts_as_people_write_them(text: str, amount: float) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "1,500",
        "12.500 €",
        "$1.500",
        "1,2,3",
        "1.2.3",
        "1,234.56.7",
        "12.50.000",
        "1 2",
        "1,",
        ",5",
        "N/A",
        "-",
        "--",
        "null",
        "free",
        "from 5",
        "5 pieces",
        "5%",
        "5-10",
        "(5)",
        "",
        "€",
        "1e",
        "²",
    ],
)
def test_what_is_no_amount_or_could_be_two_is_not_read(text: str) -> None:
    assert parse_amount(text) is None


@given(st.integers(0, 10**9), st.integers(0, 99), st.sampled_from(["{}", "€ {}", "{} EUR", "$ {}"]))
def test_every_way_of_writing_an_amount_gives_it_back(
    whole: int, cents: int, currency: str
) -> None:
    english = f"{whole:,}.{cents:02}"

    for text in (
        english,
        english.translate(str.maketrans(",.", ".,")),
        english.translate(str.maketrans(",.", " ,")),
        english.translate(str.maketrans(",", "'")),
        f"{whole},{cents:02}",
    ):
        assert parse_amount(currency.format(text)) == float(f"{whole}.{cents:02}")


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    parse_amount(text)


def test_numbers_of_programs_are_read_as_they_are() -> None:
    texts = ["1.500", "1e3", "-2", "1,50", None, "N/A"]

    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})

    assert frame.select(parse_amounts(pl.col("text")))["text"].to_list() == [
        1.5,
        1000.0,
        -2.0,
        1.5,
        None,
        None,
    ]
