import math

import numpy as np
import polars as pl
import pytest

from recsys.catalogue.store import Catalogue
from recsys.catalogue.words import words
from recsys.identification.words import DESCRIPTION, EVIDENCE, MIN_SEEN, Lines, WordIndex
from recsys.schema import ItemSchema

ITEMS = {
    "mild": ("Arla Mild Lättyoghurt", "Swedish milk"),
    "vanilla": ("Valio Vanilla Yoghurt", None),
    "juice": ("Bravo Apple Juice", "From apples, with vanilla"),
    "nameless": (None, None),
}
PICTURES = {"juice": ("BRAVO", "äpple 100%")}


def table(items: dict[str, tuple[str | None, str | None]]) -> pl.DataFrame:
    rows = [
        dict.fromkeys(ItemSchema.column_names())
        | {"item_id": item_id, "title": title, "description": description}
        | {"category": [], "attributes": [], "available": True}
        for item_id, (title, description) in items.items()
    ]
    return ItemSchema.cast(pl.DataFrame(rows, schema=ItemSchema.create_empty().schema))


def build_catalogue() -> Catalogue:
    return Catalogue(table(ITEMS), np.ones((len(ITEMS), 2), dtype=np.float32))


@pytest.fixture
def catalogue() -> Catalogue:
    return build_catalogue()


@pytest.fixture
def index(catalogue: Catalogue) -> WordIndex:
    return WordIndex(catalogue, PICTURES)


def cut(word: str) -> set[str]:
    return {word} if len(word) <= 3 else {word[n : n + 3] for n in range(len(word) - 2)}


def by_definition(lines: Lines) -> list[float]:
    """Return the value of every product, as loops over products and words."""
    weights: dict[str, dict[str, float]] = {}
    for item_id, (title, description) in ITEMS.items():
        short = words(" ".join([title or "", *PICTURES.get(item_id, ())]))
        weights[item_id] = {
            **dict.fromkeys(words(description or ""), DESCRIPTION),
            **dict.fromkeys(short, 1.0),
        }
    read = {piece for word in words(" ".join(lines)) for piece in cut(word)}
    seen = {}
    for word in {word for of_item in weights.values() for word in of_item}:
        share = len(cut(word) & read) / len(cut(word))
        n = sum(word in of_item for of_item in weights.values())
        rarity = math.log1p((len(ITEMS) - n + 0.5) / (n + 0.5))
        seen[word] = share * rarity if share >= MIN_SEEN else 0.0
    total = EVIDENCE + sum(seen.values())
    return [
        sum(weight * seen[word] for word, weight in of_item.items()) / total
        for of_item in weights.values()
    ]


@pytest.mark.parametrize(
    "lines",
    [("MILDLATTYOGHURT", "ARLA"), ("vanilia",), ("100", "apple"), ("Valio yoghurt", "Bravo")],
)
def test_values_are_the_shares_of_the_seen_words(index: WordIndex, lines: Lines) -> None:
    found = index.scores([lines])
    np.testing.assert_allclose(found.values[0], by_definition(lines), rtol=1e-6)
    assert found.present[0].tolist() == [True, True, True, False]


def test_joined_and_misread_words_still_find_their_product(index: WordIndex) -> None:
    found = index.scores([("Arla", "MILDLATTYOGHURT"), ("VANlLLA", "Valio"), ("Äppie", "JUICE")])
    assert found.values.argmax(axis=1).tolist() == [0, 1, 2]


def test_words_on_the_shops_picture_are_words_of_the_product(catalogue: Catalogue) -> None:
    lines = [("100",)]
    assert WordIndex(catalogue, PICTURES).scores(lines).values[0].argmax() == 2
    assert not WordIndex(catalogue, {}).scores(lines).present.any()


@pytest.mark.parametrize("lines", [(), ("",), ("ქართული",), ("zzz qqq",)])
def test_a_photo_without_a_word_of_the_catalogue_says_nothing(
    index: WordIndex, lines: Lines
) -> None:
    found = index.scores([lines])
    assert not found.present.any()
    assert not found.values.any()


def test_a_thousand_words_keep_values_below_one(index: WordIndex) -> None:
    lines = tuple(f"{title} {n}" for n in range(1_000) for title, _ in ITEMS.values() if title)
    values = index.scores([lines]).values
    assert (values >= 0).all()
    assert (values < 1).all()


def test_photos_are_independent(index: WordIndex) -> None:
    photos = [("Arla",), (), ("Bravo", "juice")]
    together = index.scores(photos)
    for n, lines in enumerate(photos):
        np.testing.assert_allclose(index.scores([lines]).values[0], together.values[n])


def test_the_index_follows_the_catalogue(catalogue: Catalogue, index: WordIndex) -> None:
    kefir = {"kefir": ("Skånemejerier Kefir", None), "vanilla": ("Strawberry drink", None)}
    catalogue.upsert(table(kefir), np.ones((2, 2), dtype=np.float32))
    found = index.scores([("KEFIR",), ("strawberry",), ("Valio",)])
    assert found.values[:2].argmax(axis=1).tolist() == [4, 1]
    assert found.present[0].tolist() == [True, True, True, False, True]
    assert not found.values[2, 1]  # the old title is gone
    before = WordIndex(build_catalogue(), PICTURES).scores([("Bravo juice",)])
    after = index.scores([("Bravo juice",)])
    np.testing.assert_allclose(after.values[0, [0, 2]], before.values[0, [0, 2]])


def test_a_new_picture_takes_the_words_of_the_old_one_away(index: WordIndex) -> None:
    lines = [("100",)]
    index.replace_pictures(["juice", "mild"])
    assert not index.scores(lines).present.any() or index.scores(lines).values[0, 2] == 0
    index.reset_pictures(["juice", "mild"])
    np.testing.assert_allclose(index.scores(lines).values[0], by_definition(lines[0]), rtol=1e-6)


def test_an_empty_catalogue_and_no_photos_have_empty_tables(index: WordIndex) -> None:
    assert index.scores([]).values.shape == (0, len(ITEMS))
    empty = Catalogue(table({}), np.ones((0, 2), dtype=np.float32))
    assert WordIndex(empty, {}).scores([("a",)]).values.shape == (1, 0)
