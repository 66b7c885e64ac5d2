import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recsys.models.gallery import (
    HEAD,
    ITEM,
    NEAREST,
    PHOTOS,
    PICTURE,
    Gallery,
    Photos,
    collect_evidence,
    nearest_photos,
)

N_ITEMS, DIM = 5, 4


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def gallery() -> Gallery:
    """Item 4 has nothing; the head knows items 2 and 0, and one class that is no item."""
    return Gallery(
        pictures=unit(3, DIM, seed=1),
        picture_rows=torch.tensor([3, 0, 1]),
        photos=unit(6, DIM, seed=2),
        photo_rows=torch.tensor([1, 0, 1, 1, 1, 3]),
        head_rows=torch.tensor([2, -1, 0]),
    )


@pytest.fixture
def photos() -> Photos:
    return Photos(unit(2, DIM, seed=3), torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]]))


@pytest.fixture
def items() -> Tensor:
    items = unit(N_ITEMS, DIM, seed=4)
    items[4] = 0.0
    return items


def test_evidence_is_what_each_source_says_of_each_product(
    gallery: Gallery, photos: Photos, items: Tensor
) -> None:
    found = collect_evidence(photos, items, gallery)
    for n, query in enumerate(photos.embeddings):
        log_probabilities = photos.logits[n].log_softmax(dim=0)
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
                HEAD: float(log_probabilities[classes[0]]) if len(classes) else None,
            }
            for source, value in wanted.items():
                assert bool(found.present[n, row, source]) == (value is not None)
                assert float(found.values[n, row, source]) == pytest.approx(value or 0.0, abs=1e-6)
        assert float(found.elsewhere[n]) == pytest.approx(float(log_probabilities[1]), abs=1e-6)


def test_a_hidden_class_leaves_its_probability_to_the_others(
    gallery: Gallery, photos: Photos, items: Tensor
) -> None:
    evidence = collect_evidence(photos, items, gallery)
    hidden = torch.zeros_like(evidence.present)
    hidden[:, 2] = True
    found = evidence.without(hidden)
    never_learned = photos.logits[:, 1:].log_softmax(dim=1)  # of the other two classes
    assert torch.allclose(found.values[:, 0, HEAD], never_learned[:, 1], atol=1e-6)
    assert torch.allclose(found.elsewhere, never_learned[:, 0], atol=1e-6)
    assert not found.present[:, 2].any()
    assert not found.values[:, 2].any()
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(found.values[:, others, :HEAD], evidence.values[:, others, :HEAD])


def test_hiding_every_class_of_the_head_leaves_finite_evidence(items: Tensor) -> None:
    none = torch.zeros(0, dtype=torch.long)
    gallery = Gallery(unit(0, DIM), none, unit(0, DIM), none, head_rows=torch.tensor([1]))
    evidence = collect_evidence(Photos(unit(2, DIM), torch.zeros(2, 1)), items, gallery)
    found = evidence.without(evidence.present)
    assert not found.present.any()
    assert torch.isfinite(found.values).all()


def test_hiding_nothing_changes_nothing(gallery: Gallery, photos: Photos, items: Tensor) -> None:
    evidence = collect_evidence(photos, items, gallery)
    found = evidence.without(torch.zeros_like(evidence.present))
    assert torch.allclose(found.values, evidence.values, atol=1e-6)
    assert torch.equal(found.present, evidence.present)


@given(
    rows=st.lists(st.integers(0, 3), max_size=12),
    seed=st.integers(0, 1_000),
)
def test_nearest_photos_are_those_of_a_search_product_by_product(
    rows: list[int], seed: int
) -> None:
    queries, photos = unit(3, DIM, seed=seed), unit(len(rows), DIM, seed=seed + 1)
    products, nearest = nearest_photos(queries, photos, torch.tensor(rows, dtype=torch.long))
    assert products.tolist() == sorted(set(rows))
    for place, product in enumerate(products.tolist()):
        cosines = queries @ photos[torch.tensor(rows) == product].T
        wanted = cosines.sort(dim=1, descending=True).values[:, :NEAREST].mean(dim=1)
        assert torch.allclose(nearest[:, place], wanted, atol=1e-5)


def test_a_picture_replaces_the_old_one_and_zeros_take_it_away(gallery: Gallery) -> None:
    fresh = torch.stack([torch.zeros(DIM), unit(DIM, seed=9), unit(DIM, seed=8)])
    found = gallery.with_pictures(torch.tensor([0, 3, 4]), fresh)
    assert found.picture_rows.tolist() == [1, 3, 4]
    assert torch.equal(found.pictures, torch.stack([gallery.pictures[2], fresh[1], fresh[2]]))
    assert gallery.picture_rows.tolist() == [3, 0, 1]


def test_more_photos_are_added_to_those_that_are_there(gallery: Gallery) -> None:
    found = gallery.with_photos(torch.tensor([4, 0]), unit(2, DIM, seed=7))
    assert found.photo_rows.tolist() == [1, 0, 1, 1, 1, 3, 4, 0]
    assert torch.equal(found.photos[6:], unit(2, DIM, seed=7))
    assert torch.equal(found.photos[:6], gallery.photos)
