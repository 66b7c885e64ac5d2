import tracemalloc
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.curation.variants import find_variants
from recsys.schema import ItemSchema

Attributes = dict[str, str]


def shop(
    *titles: str | None,
    category: Sequence[Sequence[str]] | None = None,
    attributes: Sequence[Attributes] | None = None,
) -> pl.DataFrame:
    count = len(titles)
    pairs = [[{"key": k, "value": v} for k, v in one.items()] for one in attributes or [{}] * count]
    rows = {
        "item_id": [f"i{row}" for row in range(count)],
        "title": titles,
        "category": category if category is not None else [["Clothes"]] * count,
        "attributes": pairs,
        "available": [True] * count,
    }
    schema = {name: column.dtype for name, column in ItemSchema.columns().items() if name in rows}
    return pl.DataFrame(rows, schema=schema)


def alike(items: pl.DataFrame) -> np.ndarray:
    return np.ones((len(items), 1), np.float32)


def groups(items: pl.DataFrame, embeddings: np.ndarray | None = None) -> list[list[str]]:
    found = find_variants(items, alike(items) if embeddings is None else embeddings)
    return found.group_by("group", maintain_order=True).agg("item_id")["item_id"].to_list()


def test_items_that_differ_in_colour_or_size_are_one_product() -> None:
    items = shop(
        "Acme Men Blue Shirt",
        "Acme Men Dark Red Shirt",
        "Acme Women Red Shirt",
        "Oat milk 500 ml",
        "Oat milk, 1 l",
        "Oat drink 1 l",
        None,
    )
    found = find_variants(items, alike(items))
    assert found.rows() == [
        (0, "i0", "blue", None),
        (0, "i1", "dark red", None),
        (1, "i3", None, "500 ml"),
        (1, "i4", None, "1 l"),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Tee (navy blue)", "Tee (white)"),
        ("Blue & grey rucksack", "Black and light-grey rucksack"),
        ("black/white cap", "CAP, RED"),
        ("Boots EU 42", "Boots EU 43.5"),
        ("Boots size 9", "Boots"),
        ("Shirt XXL", "Shirt M"),
        ("Shirt 3XL red", "Shirt S blue"),
        ("ＢＬＵＥ mug", "red mug"),
    ],
)
def test_words_of_colour_and_size_are_known_however_they_are_written(
    first: str, second: str
) -> None:
    assert groups(shop(first, second)) == [["i0", "i1"]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Men's shirt", "Men shirt"),
        ("U.S. Polo shirt", "U. Polo shirt"),
        ("L-shaped desk", "shaped desk"),
        ("Redwood table", "Bluewood table"),
        ("iPhone 10", "iPhone 11"),
        ("red", "blue"),
        ("", "red"),
    ],
)
def test_strings_that_only_look_like_a_colour_or_size_stay_in_the_title(
    first: str, second: str
) -> None:
    assert groups(shop(first, second)) == []


def test_a_shops_own_colour_words_come_from_its_attributes() -> None:
    titles = ("Hemd nachtblau", "Hemd rostrot")
    assert groups(shop(*titles)) == []
    named = [{"Farbe (colour)": "Nachtblau"}, {"Farbe (colour)": "Rostrot"}]
    found = find_variants(shop(*titles, attributes=named), np.ones((2, 1), np.float32))
    assert found["colour"].to_list() == ["nachtblau", "rostrot"]


def test_colour_and_size_may_come_from_attributes() -> None:
    sizes = [{"colour": "red", "size": "40"}, {"colour": "red", "size": "41"}]
    items = shop("Shoe", "Shoe", attributes=sizes)
    assert find_variants(items, alike(items)).rows() == [
        (0, "i0", "red", "40"),
        (0, "i1", "red", "41"),
    ]


def test_items_that_differ_in_nothing_are_not_variants() -> None:
    assert groups(shop("Blue shirt", "Shirt blue")) == []
    assert groups(shop("Blue shirt", "Shirt blue", "Red shirt")) == [["i0", "i1", "i2"]]


def test_category_and_brand_are_the_same() -> None:
    titles = ("Blue tea", "Green tea", "Red tea")
    paths = [["Cups"], ["Drinks"], ["Cups"]]
    assert groups(shop(*titles, category=paths)) == [["i0", "i2"]]
    brands = [{"brand": "a"}, {"brand": "b"}, {"brand": "b"}]
    assert groups(shop(*titles, attributes=brands)) == [["i1", "i2"]]


def test_variants_may_look_alike_through_another_variant() -> None:
    angles = np.deg2rad([0, 50, 100, 220])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    items = shop("red cap", "blue cap", "green cap", "white cap")
    assert groups(items, embeddings) == [["i0", "i1", "i2"]]
    everything = find_variants(items, embeddings, min_similarity=-1.0)
    assert everything["item_id"].to_list() == ["i0", "i1", "i2", "i3"]
    assert len(find_variants(items, embeddings, min_similarity=0.9)) == 0
    assert groups(items, np.zeros((4, 2), np.float32)) == [], "items without an embedding"


@pytest.mark.parametrize("min_similarity", [-1.0, 0.9])
def test_a_large_group_never_has_all_its_pairs_in_memory(min_similarity: float) -> None:
    count = 3_000
    items = shop(*(f"size {n} cap" for n in range(count)))
    embeddings = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    tracemalloc.start()
    try:
        find_variants(items, embeddings, min_similarity=min_similarity)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * count * count / 2, "half of the cosines"


@given(st.permutations(range(6)))
def test_the_order_of_the_items_does_not_matter(order: list[int]) -> None:
    titles = ["red cap", "blue cap", "Oil 1 l", "Oil 2 l", "green cap", "mug"]
    found = groups(shop(*(titles[row] for row in order)))
    original = {frozenset(titles[order[int(one[1:])]] for one in group) for group in found}
    assert original == {
        frozenset({"red cap", "blue cap", "green cap"}),
        frozenset({"Oil 1 l", "Oil 2 l"}),
    }


def test_without_variants_the_table_is_empty_and_has_its_columns() -> None:
    found = find_variants(shop("mug"), np.ones((1, 1), np.float32))
    assert found.schema == {
        "group": pl.Int64,
        "item_id": pl.String,
        "colour": pl.String,
        "size": pl.String,
    }
    assert len(found) == 0


def test_another_number_of_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="embeddings must have 1 rows, as items, got 2"):
        find_variants(shop("mug"), np.ones((2, 1), np.float32))
