from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.myntra_pictures import split_of
from benchmarks.myntra_retrieval import Shop, best_rank, held_out, stem, without_names


def test_a_rank_counts_better_and_equal_scores() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.2], dtype=np.float32)
    assert best_rank(scores, np.array([False, True, False, False, False])) == 1
    assert best_rank(scores, np.array([True, False, True, False, False])) == 3
    assert best_rank(scores, np.array([True, False, False, False, False])) == 5


def test_each_group_is_in_one_split_and_most_groups_are_in_train() -> None:
    splits = split_of([str(n // 2) for n in range(2_000)])
    assert (splits[::2] == splits[1::2]).all()
    assert (splits == "train").mean() == pytest.approx(0.8, abs=0.03)
    assert set(splits) == {"train", "val", "test"}


def test_each_held_out_group_gives_one_query() -> None:
    groups = np.array([str(n // 3) for n in range(300)])
    items = pl.DataFrame({"item_id": [str(n) for n in range(300)]})
    shop = Shop(items, Path(), groups, split_of(groups.tolist()))
    rows = held_out(shop, "test")
    assert set(shop.splits[rows]) == {"test"}
    assert sorted(groups[rows]) == sorted(set(groups[shop.splits == "test"]))


def test_titles_lose_the_words_that_name_types_and_colours() -> None:
    items = pl.DataFrame(
        {
            "title": ["Puma Men Navy Blue T-shirt", "Roadster Watch 42mm", "Blue"],
            "category": [["Apparel", "Tshirts"], ["Accessories", "Watches"], ["Apparel"]],
            "attributes": [
                [{"key": "base_colour", "value": "Navy Blue"}],
                [{"key": "usage", "value": "Casual"}],
                [],
            ],
        }
    )
    assert without_names(items) == ["Puma Men", "Roadster 42mm", ""]


@pytest.mark.parametrize(
    ("one", "other"), [("Watches", "watch"), ("T-Shirt", "Tshirts"), ("Dresses", "dress")]
)
def test_a_word_and_its_plural_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)
