from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.identification.evidence import (
    HEAD,
    ITEM,
    NEAREST,
    PHOTOS,
    PICTURE,
    REGRESSION,
    Gallery,
    Photos,
    collect_evidence,
    nearest_photos,
)
from recsys.identification.regression import fit_regression

N_ITEMS, DIM = 5, 4


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def gallery() -> Gallery:
    """Item 4 has nothing; of the head's classes two are items 2 and 0, and one is not an item."""
    return Gallery(
        pictures=unit(3, DIM, seed=1),
        picture_rows=torch.tensor([3, 0, 1]),
        photos=unit(6, DIM, seed=2),
        photo_rows=torch.tensor([1, 0, 1, 1, 1, 3]),
        head_rows=torch.tensor([2, -1, 0]),
    )


@pytest.fixture
def photos() -> Photos:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    return Photos(unit(2, DIM, seed=3), logits, unit(2, 6, seed=5))


@pytest.fixture
def items() -> Tensor:
    items = unit(N_ITEMS, DIM, seed=4)
    items[4] = 0.0
    return items


def test_a_regression_speaks_of_the_products_that_it_was_fitted_on(
    gallery: Gallery, photos: Photos, items: Tensor
) -> None:
    regression = fit_regression(unit(6, 6, seed=6), torch.tensor([1, 0, 1, 1, 1, 3]))
    before = collect_evidence(photos, items, gallery)
    found = collect_evidence(photos, items, gallery.with_regression(regression))
    assert not before.present[..., REGRESSION].any()
    assert found.present[0, :, REGRESSION].tolist() == [True, True, False, True, False]
    wanted = regression.scores(photos.features)
    assert torch.equal(found.values[:, [0, 1, 3], REGRESSION], wanted)
    assert torch.equal(found.values[..., :REGRESSION], before.values[..., :REGRESSION])


def test_evidence_has_the_value_of_each_source_for_each_product(
    gallery: Gallery, photos: Photos, items: Tensor
) -> None:
    found = collect_evidence(photos, items, gallery)
    for n, query in enumerate(photos.embeddings):
        for row in range(N_ITEMS):
            pictures = gallery.pictures[gallery.picture_rows == row]
            mine = gallery.photos[gallery.photo_rows == row]
            classes = (gallery.head_rows == row).nonzero().flatten()
            wanted = {
                PICTURE: float(query @ pictures[0]) if len(pictures) else None,
                ITEM: float(query @ items[row]) if row != 4 else None,
                PHOTOS: float((mine @ query).topk(min(NEAREST, len(mine))).values.mean())
                if len(mine)
                else None,
                HEAD: float(photos.logits[n, classes[0]]) if len(classes) else None,
            }
            for source, value in wanted.items():
                assert bool(found.present[n, row, source]) == (value is not None)
                assert float(found.values[n, row, source]) == pytest.approx(value or 0.0, abs=1e-6)


def test_hidden_sources_are_as_if_the_gallery_had_never_had_them(
    gallery: Gallery, photos: Photos, items: Tensor
) -> None:
    evidence = collect_evidence(photos, items, gallery)
    hidden = torch.zeros_like(evidence.present)
    hidden[0, 2, HEAD] = True
    hidden[:, :, PHOTOS] = True
    found = evidence.without(hidden)
    bare = replace(gallery, photos=unit(0, DIM), photo_rows=gallery.photo_rows[:0])
    wanted = collect_evidence(photos, items, bare)
    assert torch.equal(found.present[1], wanted.present[1])
    assert torch.equal(found.values[1], wanted.values[1])
    assert not found.present[0, 2, HEAD]
    assert found.values[0, 2, HEAD] == 0.0


@given(
    rows=st.lists(st.integers(0, 3), max_size=12),
    seed=st.integers(0, 1_000),
)
def test_nearest_photos_agree_with_a_search_product_by_product(rows: list[int], seed: int) -> None:
    queries, photos = unit(3, DIM, seed=seed), unit(len(rows), DIM, seed=seed + 1)
    products, nearest = nearest_photos(queries, photos, torch.tensor(rows, dtype=torch.long))
    assert products.tolist() == sorted(set(rows))
    for place, product in enumerate(products.tolist()):
        cosines = queries @ photos[torch.tensor(rows) == product].T
        wanted = cosines.sort(dim=1, descending=True).values[:, :NEAREST].mean(dim=1)
        assert torch.allclose(nearest[:, place], wanted, atol=1e-5)


@pytest.mark.parametrize("pairs_at_once", [1, 25])
def test_comparing_fewer_pairs_at_once_gives_the_same_similarities(pairs_at_once: int) -> None:
    queries, photos, rows = unit(7, DIM), unit(12, DIM, seed=1), torch.arange(12) % 5
    wanted = nearest_photos(queries, photos, rows)
    found = nearest_photos(queries, photos, rows, pairs_at_once=pairs_at_once)
    for part, whole in zip(found, wanted, strict=True):
        torch.testing.assert_close(part, whole)


def test_no_queries_give_a_table_without_rows() -> None:
    photos, rows = unit(12, DIM, seed=1), torch.arange(12) % 5
    assert nearest_photos(unit(0, DIM), photos, rows)[1].shape == (0, 5)


def test_a_picture_replaces_the_old_one_and_zeros_remove_it(gallery: Gallery) -> None:
    fresh = torch.stack([torch.zeros(DIM), unit(DIM, seed=9), unit(DIM, seed=8)])
    found = gallery.with_pictures(torch.tensor([0, 3, 4]), fresh)
    assert found.picture_rows.tolist() == [1, 3, 4]
    assert torch.equal(found.pictures, torch.stack([gallery.pictures[2], fresh[1], fresh[2]]))
    assert gallery.picture_rows.tolist() == [3, 0, 1]


def test_photos_are_added_to_the_existing_ones(gallery: Gallery) -> None:
    found = gallery.with_photos(torch.tensor([4, 0]), unit(2, DIM, seed=7))
    assert found.photo_rows.tolist() == [1, 0, 1, 1, 1, 3, 4, 0]
    assert torch.equal(found.photos[6:], unit(2, DIM, seed=7))
    assert torch.equal(found.photos[:6], gallery.photos)
