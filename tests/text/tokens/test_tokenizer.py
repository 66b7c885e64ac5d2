"""The catalogue's own tokenizer."""

import pytest

from text.tokens.normalize import normalize
from text.tokens.tokenizer import train_tokenizer

TITLES = [
    "Kestrel Nordic vase 20 cm",
    "Kestrel Retro mug, red",
    "Sonnenblumen Öl 1 l",
    "Sonnenblumen Samen",
    "Kürbiskern Öl",
    "红色连衣裙 女",
    "红色短裙",
    "メンズ ジーンズ",
    "レディース ジーンズ",
]


def test_the_same_texts_give_the_same_tokenizer() -> None:
    first, second = (
        train_tokenizer(TITLES, vocab_size=500, max_tokens=32).backend_tokenizer.to_str()
        for _ in range(2)
    )
    assert first == second


def test_a_word_that_occurs_twice_is_one_token() -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=500, max_tokens=32)
    assert len(tokenizer("kestrel", add_special_tokens=False)["input_ids"]) == 1
    assert tokenizer("KESTREL")["input_ids"] == tokenizer("kestrel")["input_ids"]


def test_the_end_of_a_german_compound_is_the_word_it_ends_in() -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=500, max_tokens=32)
    compound = tokenizer("Sonnenblumenöl", add_special_tokens=False)["input_ids"]
    parts = tokenizer("Sonnenblumen Öl", add_special_tokens=False)["input_ids"]
    assert compound == parts


def test_a_chinese_character_is_a_piece_wherever_it_stands() -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=500, max_tokens=32)
    (skirt,) = tokenizer("裙", add_special_tokens=False)["input_ids"]
    for title in ("红色连衣裙 女", "红色短裙"):
        assert skirt in tokenizer(title)["input_ids"]


@pytest.mark.parametrize("text", ["🧥👪", "ﷺ", "ພາສາ", "XXL 100%", "हिंदी", "ガラス"])
def test_every_string_can_be_written_without_an_unknown_token(text: str) -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=500, max_tokens=64)
    text = normalize(text)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids).replace(" ", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("Crème brûlée", "creme brulee"),
        ("Weiße Größe", "weisse grosse"),
        ("Кофёр", "кофер"),
        ("כּוֹס", "כוס"),
        ("مُحَمَّد ســلام", "محمد سلام"),
        ("30 × 40 cm", "30x40cm"),
        ("T‑Shirt 14″", 'T-shirt 14"'),
        ("“L’Oréal”", '"L\'oreal"'),
        ("❤️ 👩‍🍳", "❤👩🍳"),
        ("500ml", "500 ml"),
        ("Tシャツ大", "T シャツ 大"),
    ],
)
def test_typed_words_and_titles_have_the_same_tokens(title: str, query: str) -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=500, max_tokens=64)
    assert tokenizer(normalize(title))["input_ids"] == tokenizer(normalize(query))["input_ids"]


@pytest.mark.parametrize(("one", "other"), [("กา", "ก่า"), ("カス", "ガス"), ("की", "कि")])
def test_marks_that_are_letters_stay(one: str, other: str) -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=500, max_tokens=64)
    assert tokenizer(normalize(one))["input_ids"] != tokenizer(normalize(other))["input_ids"]


def test_a_compound_holds_the_tokens_of_the_word_it_ends_in() -> None:
    titles = ["Handtasche rot", "Handtasche blau", "Lederhandtasche", "Leder Gürtel", "Lederetui"]
    tokenizer = train_tokenizer(titles, vocab_size=500, max_tokens=64)
    compound = tokenizer("Lederhandtasche", add_special_tokens=False)["input_ids"]
    bag = tokenizer("Handtasche", add_special_tokens=False)["input_ids"]
    assert compound[-len(bag) :] == bag


def test_vocabulary_is_bounded_and_texts_are_cut() -> None:
    tokenizer = train_tokenizer(TITLES, vocab_size=300, max_tokens=8)
    assert len(tokenizer) <= 300
    assert len(tokenizer("vase " * 50, truncation=True)["input_ids"]) == 8
