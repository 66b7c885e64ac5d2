import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.catalogue.filters import Filters
from recsys.catalogue.search import CatalogueSearch, fuse_ranks, query_parts
from recsys.catalogue.store import Catalogue
from recsys.catalogue.vectors import EXACT_UP_TO
from recsys.schema import ItemSchema

ANGLES = {"red lamp": 0, "blue lamp": 40, "red mug": 90, "blue mug": 130}


def vector(degrees: float) -> Tensor:
    angle = torch.tensor(float(degrees)).deg2rad()
    return torch.stack([angle.cos(), angle.sin()])


def build_catalogue(titles: list[str | None], vectors: list[Tensor]) -> Catalogue:
    ids = [title.replace(" ", "-") if title else "blank" for title in titles]
    items = pl.DataFrame({"item_id": ids, "title": titles}).with_columns(
        category=pl.lit([], dtype=pl.List(pl.String)),
        attributes=pl.lit([], dtype=ItemSchema.attributes.dtype),
        available=True,
        **{name: pl.lit(None) for name in ("description", "image", "price", "created_at")},
    )
    items = ItemSchema.validate(items.select(ItemSchema.column_names()), cast=True)
    return Catalogue(items, torch.stack(vectors).numpy())


@pytest.fixture
def catalogue() -> Catalogue:
    """Four items around a circle, and one with neither title nor picture."""
    return build_catalogue([*ANGLES, None], [*map(vector, ANGLES.values()), torch.zeros(2)])


@pytest.fixture
def search(catalogue: Catalogue) -> CatalogueSearch:
    return CatalogueSearch(catalogue)


@pytest.fixture
def mask(catalogue: Catalogue) -> np.ndarray:
    return catalogue.mask(Filters())


def test_fused_ranks_are_the_sum_of_reciprocal_ranks() -> None:
    fused = fuse_ranks([torch.tensor([7, 3, 5]), torch.tensor([3, 9])], [1.0, 3.0], 3)
    assert fused.rows.tolist() == [3, 9, 7]
    wanted = [1 / 22 + 3 / 21, 3 / 22, 1 / 21]
    np.testing.assert_allclose(fused.scores, wanted, rtol=1e-6)


def test_equal_ranks_come_in_row_order() -> None:
    rankings = [torch.tensor([5, 1]), torch.tensor([1, 5])]
    assert fuse_ranks(rankings, [1.0, 1.0], 2).rows.tolist() == [1, 5]


def test_empty_rankings_fuse_to_an_empty_ranking() -> None:
    empty = torch.empty(0, dtype=torch.int64)
    assert fuse_ranks([empty, empty], [1.0, 1.0], 3).rows.tolist() == []


def test_each_mode_ranks_by_its_definition(search: CatalogueSearch, mask: np.ndarray) -> None:
    found = {
        mode: search.search("blue mug", [vector(0)], mask, 4, mode).rows.tolist()
        for mode in ("vector", "lexical", "hybrid")
    }
    assert found["vector"] == [0, 1, 2, 3]
    assert found["lexical"] == [3, 1, 2]  # those with either word
    assert found["hybrid"] == [3, 1, 2, 0]


def test_words_that_no_item_has_leave_the_order_of_vectors(
    search: CatalogueSearch, mask: np.ndarray
) -> None:
    for text in ("the of and", "?!", "ランプ", "\x01"):
        hybrid = search.search(text, [vector(50)], mask, 4, "hybrid")
        assert hybrid.rows.tolist() == search.by_vector(vector(50), mask, 4).rows.tolist()
        assert search.search(text, [], mask, 4, "lexical").rows.tolist() == []


def test_an_image_and_words_find_the_changed_picture(
    search: CatalogueSearch, mask: np.ndarray
) -> None:
    picture, blue = vector(0), vector(85)
    assert search.search("in blue", [blue, picture], mask, 1, "hybrid").rows.tolist() == [1]
    between = search.search("in blue", [blue, picture], mask, 4, "vector")
    assert between.rows.tolist() == [1, 0, 2, 3]
    assert float(between.scores[0]) == pytest.approx(np.cos(np.deg2rad(2.5)), abs=1e-6)


def test_words_beside_an_image_do_not_find_items_far_from_it() -> None:
    titles = ["blue whale", *(f"red lamp {number}" for number in range(60))]
    catalogue = build_catalogue([*titles], [vector(180), *(vector(n / 10) for n in range(60))])
    search, mask = CatalogueSearch(catalogue), catalogue.mask(Filters())
    parts = [vector(20), vector(0)]
    assert search.search("blue", parts[:1], mask, 1, "hybrid").rows.tolist() == [0]
    assert 0 not in search.search("in blue", parts, mask, 50, "hybrid").rows.tolist()


def test_filters_hold_before_ranking(search: CatalogueSearch, mask: np.ndarray) -> None:
    mask[[0, 1]] = False
    for mode in ("vector", "lexical", "hybrid"):
        found = search.search("red lamp mug", [vector(0)], mask, 2, mode)
        assert sorted(found.rows.tolist()) == [2, 3]


def test_an_item_with_neither_title_nor_picture_is_not_found(
    search: CatalogueSearch, mask: np.ndarray
) -> None:
    assert sorted(search.by_vector(vector(0), mask, 10).rows.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("exact_up_to", [0, EXACT_UP_TO])
@pytest.mark.parametrize("prepared", [False, True])
def test_search_follows_the_catalogue(
    catalogue: Catalogue, exact_up_to: int, prepared: bool
) -> None:
    search = CatalogueSearch(catalogue, exact_up_to=exact_up_to)
    if prepared:
        search.prepare()
    lamp = catalogue.records(["red-lamp"])
    catalogue.upsert(
        lamp.with_columns(item_id=pl.lit("new"), title=pl.lit("golden trumpet")),
        vector(180).numpy()[None],
    )
    catalogue.delete(["red-mug"])
    search.update([5, 2])
    mask = catalogue.mask(Filters())
    assert search.by_vector(vector(180), mask, 1).rows.tolist() == [5]
    assert search.by_words("trumpet", mask, 5).rows.tolist() == [5]
    assert search.by_words("red", mask, 5).rows.tolist() == [0]


def test_words_and_image_are_embedded_apart() -> None:
    assert query_parts("lamp", b"picture", "hybrid") == [("lamp", None), (None, b"picture")]
    assert query_parts("lamp", None, "vector") == [("lamp", None)]
    assert query_parts(" ", b"picture", "hybrid") == [(None, b"picture")]
    assert query_parts("lamp", None, "lexical") == []


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode must be one of hybrid, vector, lexical, got 'fast'"):
        query_parts("lamp", None, "fast")  # type: ignore[arg-type]


def test_a_lexical_search_needs_words_alone() -> None:
    with pytest.raises(ValueError, match="must have words and no image, got an image"):
        query_parts("lamp", b"picture", "lexical")
    with pytest.raises(ValueError, match="must have words and no image, got no words"):
        query_parts("  ", None, "lexical")
    with pytest.raises(ValueError, match="at most 1000 characters, got 10000"):
        query_parts("x" * 10_000, None, "lexical")
