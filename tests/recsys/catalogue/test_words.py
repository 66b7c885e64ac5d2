import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.catalogue.store import Catalogue
from recsys.catalogue.words import K1, READ, B, LexicalIndex, words
from recsys.schema import ItemSchema

TITLES = ("Red cotton shirt", "Blue cotton trousers", "Red red lamp", "Green T-shirt by H&M")


def table(titles: dict[str, str | None]) -> pl.DataFrame:
    rows = [
        {"item_id": item_id, "title": title, "category": [], "attributes": [], "available": True}
        for item_id, title in titles.items()
    ]
    absent = {"description": pl.String, "image": pl.String, "price": pl.Float64}
    frame = pl.DataFrame(
        rows,
        schema={
            "item_id": pl.String,
            "title": pl.String,
            "category": pl.List(pl.String),
            "attributes": pl.List(pl.Struct({"key": pl.String, "value": pl.String})),
            "available": pl.Boolean,
        },
    ).with_columns(
        *(pl.lit(None, dtype=kind).alias(name) for name, kind in absent.items()),
        created_at=pl.lit(None, dtype=pl.Datetime("us", "UTC")),
    )
    return ItemSchema.validate(frame.select(ItemSchema.column_names()), cast=True)


def catalogue(*titles: str | None) -> Catalogue:
    items = table({f"item-{row}": title for row, title in enumerate(titles)})
    return Catalogue(items, np.ones((len(titles), 2), dtype=np.float32))


def upsert(shop: Catalogue, index: LexicalIndex, **titles: str | None) -> None:
    shop.upsert(table(titles), np.ones((len(titles), 2), dtype=np.float32))
    index.update(shop.rows(titles).tolist())


def bm25(query: str, titles: list[str]) -> list[float]:
    """The definition, as loops."""
    texts = [Counter(words(title)) for title in titles]
    mean = sum(text.total() for text in texts) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in set(words(query)):
            having = sum(word in other for other in texts)
            rarity = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            saturation = K1 * (1 - B + B * text.total() / mean)
            score += rarity * text[word] * (K1 + 1) / (text[word] + saturation)
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["red", "red shirt", "cotton cotton shirt", "H&M t-shirts", "of"])
def test_scores_equal_the_definition_of_bm25(query: str) -> None:
    scores = LexicalIndex(catalogue(*TITLES)).scores(query)
    np.testing.assert_allclose(scores, bm25(query, list(TITLES)), rtol=1e-5)


def test_categories_and_attributes_are_words_of_an_item() -> None:
    items = table({"a": "Nordic", "b": None}).with_columns(
        category=pl.Series([[], ["Home", "Lamps"]]),
        attributes=pl.Series(
            [[{"key": "colour", "value": "navy blue"}], []],
            dtype=pl.List(pl.Struct({"key": pl.String, "value": pl.String})),
        ),
    )
    index = LexicalIndex(Catalogue(items, np.ones((2, 2), dtype=np.float32)))
    assert (index.scores("navy") > 0).tolist() == [True, False]
    assert (index.scores("lamp") > 0).tolist() == [False, True]
    assert (index.scores("colour") > 0).tolist() == [False, False]


def test_an_index_after_changes_equals_a_new_index() -> None:
    shop = catalogue(*TITLES, None)
    index = LexicalIndex(shop)
    index.scores("red")
    upsert(shop, index, **{"item-0": "Yellow silk shirt", "item-4": "Red carpet", "new": "Mug"})
    shop.delete(["item-1", "new"])
    index.update(shop.row_of[one] for one in ("item-1", "new"))
    left = ["Yellow silk shirt", *TITLES[2:], "Red carpet"]
    for query in ("red shirt", "cotton", "mug", "carpet"):
        wanted = bm25(query, left)
        found = index.scores(query)
        np.testing.assert_allclose(found[[0, 2, 3, 4]], wanted, rtol=1e-5)
        assert found[[1, 5]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("trosers", "trousers"),
        ("trouesrs", "trousers"),
        ("ttrousers", "trousers"),
        ("troosers", "trousers"),
    ],
)
def test_an_unknown_word_is_replaced_by_one_that_is_a_letter_off(typed: str, meant: str) -> None:
    index = LexicalIndex(catalogue(*TITLES))
    assert index.scores(typed).tolist() == index.scores(meant).tolist()
    assert index.scores(typed).any()


def test_short_words_and_numbers_are_taken_as_typed() -> None:
    index = LexicalIndex(catalogue("Red lamp 10042", "Lamb"))
    assert not index.scores("rad").any()
    assert not index.scores("10043").any()


def test_a_word_that_left_the_catalogue_is_no_longer_a_correction() -> None:
    shop = catalogue("Trousers", "Mug")
    index = LexicalIndex(shop)
    assert index.scores("trosers").any()
    shop.delete(["item-0"])
    index.update([0])
    assert not index.scores("trosers").any()


@pytest.mark.parametrize(
    ("title", "query"),
    [
        ("Crème brûlée", "creme BRULEE"),
        ("Straße", "strasse"),
        ("Men's T-Shirts", "tshirt men"),
        ("250ml mug", "mug 250 ml"),
        ("Shoe 10.5", "10.5"),
        ("H&M", "hm"),
        ("红色连衣裙", "连衣裙"),
        ("ナイキ スニーカー", "スニーカー"),
        ("Nike運動鞋", "運動 nike"),
        ("กระเป๋าหนัง", "กระเป๋า"),
        ("हिन्दी किताब", "किताब"),
        ("rose🌹", "🌹"),
        ("lamp\x00\x07 of \u202eoak", "lamp oak"),
        ("Ｆｕｌｌ ｗｉｄｔｈ", "full width"),
    ],
)
def test_titles_are_found_however_they_are_typed(title: str, query: str) -> None:
    assert set(words(query)) <= set(words(title))
    assert LexicalIndex(catalogue("Something else", title)).scores(query).argmax() == 1


def test_words_on_a_picture_count_half_and_do_not_make_a_text_longer() -> None:
    shop = catalogue(*TITLES)
    index = LexicalIndex(shop, {"item-1": ("COTTON denim", "Denim"), "gone": ("denim",)})
    plain = bm25("cotton", list(TITLES))
    assert index.scores("cotton").tolist() == pytest.approx(plain, abs=1e-5)
    mean = sum(len(words(title)) for title in TITLES) / len(TITLES)
    saturation = K1 * (1 - B + B * 3 / mean)
    wanted = math.log(1 + 3.5 / 1.5) * READ * (K1 + 1) / (READ + saturation)
    assert index.scores("denim").tolist() == pytest.approx([0, wanted, 0, 0], abs=1e-5)


def test_another_picture_has_other_words() -> None:
    shop = catalogue(*TITLES)
    index = LexicalIndex(shop, {"item-1": ("denim",)})
    assert index.scores("denim").argmax() == 1
    index.set_lines({"item-1": (), "item-2": ("denim",), "unknown": ("denim",)})
    assert np.flatnonzero(index.scores("denim")).tolist() == [2]
    upsert(shop, index, **{"item-2": "Another lamp"})
    assert np.flatnonzero(index.scores("denim")).tolist() == [2], "the picture is the same"


@pytest.mark.parametrize("query", ["", " ", "?!... --", "\x00\x01", "the of and", "🌹", "ランプ"])
def test_a_query_without_words_of_the_items_scores_zero(query: str) -> None:
    assert LexicalIndex(catalogue(*TITLES)).scores(query).tolist() == [0.0] * len(TITLES)


def test_an_empty_catalogue_has_no_scores() -> None:
    assert LexicalIndex(catalogue()).scores("lamp").tolist() == []


def test_ten_thousand_characters_are_read_and_no_more() -> None:
    assert len(words("ab " * 20_000)) == 10_000 // 3 + 1
    assert words("x" * 10_000) == ["x" * 10_000]


@given(st.text())
def test_any_text_has_words_that_are_their_own_words(text: str) -> None:
    found = words(text)
    assert all(word and not word.isspace() for word in found)
    assert all(word in words(word) for word in found)


@settings(max_examples=30)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6), st.text(max_size=20))
def test_scores_are_finite_and_never_negative(titles: list[str], query: str) -> None:
    scores = LexicalIndex(catalogue(*titles)).scores(query)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
