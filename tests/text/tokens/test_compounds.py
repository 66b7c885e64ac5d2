"""Words that end in another word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.tokens.compounds import split_compounds

COUNTS = {
    **dict.fromkeys(["handtasche", "tasche", "leder", "pannen", "バッグ", "핸드백"], 2),
    **dict.fromkeys(["lederhandtasche", "koekenpannen", "ショルダーバッグ", "가죽핸드백"], 1),
    **dict.fromkeys(["bodenvase", "vase", "überpannen1", "dtasche"], 1),
}


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("handtasche", ["hand", "tasche"]),
        ("lederhandtasche", ["leder", "hand", "tasche"]),
        ("koekenpannen", ["koeken", "pannen"]),
        ("ショルダーバッグ", ["ショルダー", "バッグ"]),
        ("가죽핸드백", ["가죽", "핸드백"]),
    ],
)
def test_a_compound_is_split_before_the_word_it_ends_in(word: str, parts: list[str]) -> None:
    assert split_compounds(COUNTS)[word] == parts


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("tasche", "ends in itself alone"),
        ("bodenvase", "vase occurs once"),
        ("überpannen1", "ends in a digit"),
        ("dtasche", "one letter is no part"),
    ],
)
def test_other_words_stay_whole(word: str, reason: str) -> None:
    assert split_compounds(COUNTS)[word] == [word], reason


@given(
    st.dictionaries(st.text("abß바ア1", min_size=1, max_size=14), st.integers(1, 3), max_size=30)
)
def test_parts_join_to_the_word_and_cannot_be_split_again(counts: dict[str, int]) -> None:
    split = split_compounds(counts)
    assert list(split) == list(counts)
    for word, parts in split.items():
        assert "".join(parts) == word
        assert all(split.get(part, [part]) == [part] for part in parts)
