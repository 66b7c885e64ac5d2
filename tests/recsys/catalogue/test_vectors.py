from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch

from recsys.catalogue.filters import Filters
from recsys.catalogue.store import Catalogue
from recsys.catalogue.vectors import (
    ApproximateIndex,
    ExactIndex,
    VectorIndex,
    best_rows,
    build_index,
    nearest_rows,
)
from recsys.schema import ItemSchema

N, DIM = 1_500, 16

BuildIndex = Callable[[Catalogue], VectorIndex]


def table(item_ids: list[str]) -> pl.DataFrame:
    items = pl.DataFrame({"item_id": item_ids}).with_columns(
        category=pl.lit([], dtype=pl.List(pl.String)),
        attributes=pl.lit([], dtype=ItemSchema.attributes.dtype),
        available=True,
        **{name: pl.lit(None) for name in ("title", "description", "image", "price", "created_at")},
    )
    return ItemSchema.validate(items.select(ItemSchema.column_names()), cast=True)


def unit_vectors(n: int, *, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def shop(vectors: np.ndarray) -> Catalogue:
    return Catalogue(table([f"item-{row}" for row in range(len(vectors))]), vectors)


def best(query: torch.Tensor, embeddings: torch.Tensor, mask: np.ndarray, k: int) -> list[int]:
    """The definition: a full sort of what is allowed, ties by row."""
    scored = [(-float(embeddings[row] @ query), row) for row in np.flatnonzero(mask).tolist()]
    return [row for _, row in sorted(scored)][:k]


@pytest.fixture(params=["exact", "approximate"])
def build(request: pytest.FixtureRequest) -> BuildIndex:
    if request.param == "exact":
        return ExactIndex
    return lambda catalogue: ApproximateIndex(catalogue, exact_up_to=100)


def test_an_index_finds_the_nearest_allowed_rows(build: BuildIndex) -> None:
    catalogue = shop(unit_vectors(N))
    index = build(catalogue)
    queries = torch.from_numpy(unit_vectors(20, seed=1))
    generator = np.random.default_rng(2)
    found = 0
    for query, share in zip(queries, np.linspace(0.02, 1, 20), strict=True):
        mask = generator.random(N) < share
        answer = index.nearest(query, mask, 10)
        assert mask[answer.rows].all()
        assert answer.scores.tolist() == sorted(answer.scores.tolist(), reverse=True)
        torch.testing.assert_close(answer.scores, catalogue.embeddings[answer.rows] @ query)
        found += len({*answer.rows.tolist()} & {*best(query, catalogue.embeddings, mask, 10)})
    assert found >= 195  # of 200


@pytest.mark.parametrize("n_allowed", [1, 9, 150, 1_000])
def test_a_k_above_the_catalogue_returns_all_rows(build: BuildIndex, n_allowed: int) -> None:
    index = build(shop(unit_vectors(N)))
    mask = np.arange(N) < n_allowed
    answer = index.nearest(torch.from_numpy(unit_vectors(1)[0]), mask, 500)
    assert len({*answer.rows.tolist()}) == min(500, n_allowed)


def test_a_filter_for_far_items_still_gives_k_rows(build: BuildIndex) -> None:
    catalogue = shop(unit_vectors(N))
    query = torch.from_numpy(unit_vectors(1, seed=3)[0])
    mask = (catalogue.embeddings @ query < 0).numpy()
    answer = build(catalogue).nearest(query, mask, 10)
    assert answer.rows.tolist() == best(query, catalogue.embeddings, mask, 10)


def test_an_index_follows_the_catalogue(build: BuildIndex) -> None:
    catalogue = shop(unit_vectors(N))
    index = build(catalogue)
    fresh = unit_vectors(3, seed=4)
    catalogue.upsert(table(["new", "item-7", "item-8"]), np.stack([*fresh[:2], 0 * fresh[2]]))
    catalogue.delete(["item-9"])
    index.update([N, 7, 8, 9])
    allowed = catalogue.mask(Filters()) & catalogue.embedded
    assert np.flatnonzero(~allowed).tolist() == [8, 9]
    for row, vector in ((N, fresh[0]), (7, fresh[1])):
        answer = index.nearest(torch.from_numpy(vector), allowed, 1)
        assert answer.rows.tolist() == [row]
        assert float(answer.scores[0]) == pytest.approx(1.0, abs=1e-6)


def test_k_of_a_thousand_equal_items_are_found(build: BuildIndex) -> None:
    vectors = unit_vectors(N)
    vectors[:1_000] = vectors[0]
    answer = build(shop(vectors)).nearest(torch.from_numpy(vectors[0]), np.ones(N, bool), 10)
    assert answer.rows.max() < 1_000
    assert len({*answer.rows.tolist()}) == 10


def test_a_large_catalogue_on_the_cpu_gets_the_approximate_index() -> None:
    catalogue = shop(unit_vectors(20))
    assert isinstance(build_index(catalogue, exact_up_to=20), ExactIndex)
    assert isinstance(build_index(catalogue, exact_up_to=19), ApproximateIndex)


def test_the_nearest_rows_are_those_of_a_full_sort() -> None:
    embeddings = torch.from_numpy(unit_vectors(200))
    query = torch.from_numpy(unit_vectors(1, seed=1)[0])
    for share in (0.1, 0.9):
        mask = np.random.default_rng(0).random(200) < share
        assert nearest_rows(query, embeddings, mask, 7).rows.tolist() == best(
            query, embeddings, mask, 7
        )


def test_fewer_allowed_rows_than_k_give_fewer_results() -> None:
    mask = np.array([False, True, False])
    assert nearest_rows(torch.ones(2), torch.ones(3, 2), mask, 5).rows.tolist() == [1]


def test_equal_scores_come_in_row_order() -> None:
    mask = np.ones(4, dtype=np.bool_)
    assert nearest_rows(torch.ones(2), torch.ones(4, 2), mask, 3).rows.tolist() == [0, 1, 2]
    rows, scores = torch.tensor([2, 4, 6, 8]), torch.tensor([0.5, 1.0, 0.5, 0.5])
    assert best_rows(rows, scores, 3).rows.tolist() == [4, 2, 6]


def test_a_query_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shapes"):
        nearest_rows(torch.ones(3), torch.ones(4, 2), np.ones(4, dtype=np.bool_), 1)
