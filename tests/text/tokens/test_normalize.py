"""Cleaning of titles."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.tokens.normalize import normalize

# Any code point, lone surrogates included, and the ones that make normalisation hard more often.
ANYTHING = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.characters(categories=["Cs"]),
        st.sampled_from("\u00ad\u0301\u0323\u00a8\ufdfa\u200b\u200d\u3000 \t\x00\ufb01ｅé™"),
    ),
    max_size=60,
)


@given(text=ANYTHING, max_chars=st.integers(1, 40))
def test_normalising_twice_changes_nothing(text: str, max_chars: int) -> None:
    once = normalize(text, max_chars=max_chars)
    assert normalize(once, max_chars=max_chars) == once


@given(text=ANYTHING, max_chars=st.integers(1, 40))
def test_result_is_bounded_composed_and_holds_no_control_character(
    text: str, max_chars: int
) -> None:
    result = normalize(text, max_chars=max_chars)
    assert len(result) <= max_chars
    assert unicodedata.is_normalized("NFKC", result)
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in result)
    assert result == " ".join(result.split())


@pytest.mark.parametrize(
    "title",
    [
        "红色连衣裙 女 XL",
        "デスクライト 40W",
        "Größe: Übergröße, Straße",
        "Sonnenblumenöl 1,5 l (2 × 750 ml)",
        "Coat 🧥 for 👨‍👩‍👧 and ❤️",
        "50% Baumwolle & Wolle – 3/4",
        "Кофеварка «Дом» 220V",
    ],
)
def test_the_content_of_a_title_is_kept(title: str) -> None:
    assert normalize(title) == title


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  two\t\nlines\u3000here ", "two lines here"),
        ("ＸＬ　①", "XL 1"),
        ("e\u0301te\u0301", "été"),
        ("Acme™ mug®", "Acme mug"),
        ("zero\u200bwidth \u202eright-to-left\ufeff", "zerowidth right-to-left"),
        ("nul\x00l \x1b[31mred", "null [31mred"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("", ""),
        ("\u200b \x07", ""),
    ],
)
def test_invisible_characters_and_marks_are_removed(raw: str, clean: str) -> None:
    assert normalize(raw) == clean


def test_a_title_of_any_length_is_cut() -> None:
    assert normalize("ab " * 4000, max_chars=8) == "ab ab ab"
    # A million accents in the worst order would take minutes to sort.
    assert len(normalize("a" + "\u0323\u0301" * 500_000, max_chars=100)) <= 100


def test_a_length_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="max_chars must be at least 1, got 0"):
        normalize("mug", max_chars=0)
