from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recsys.catalogue import Catalogue, Filters
from recsys.errors import UnknownItemError
from recsys.schema import ItemSchema


def table(*rows: dict[str, object]) -> pl.DataFrame:
    defaults: dict[str, object] = {
        "title": None,
        "description": None,
        "image": None,
        "category": [],
        "price": None,
        "attributes": [],
        "available": True,
        "created_at": None,
    }
    return pl.DataFrame([defaults | row for row in rows], schema=ItemSchema.create_empty().schema)


def colour(value: str) -> list[dict[str, str]]:
    return [{"key": "colour", "value": value}]


SHOES = {
    "item_id": "shoe",
    "category": ["Wear", "Shoes"],
    "price": 50.0,
    "attributes": colour("red"),
}
HAT = {"item_id": "hat", "category": ["Wear", "Hats"], "price": 20.0, "attributes": colour("blue")}
LAMP = {
    "item_id": "lamp",
    "category": ["Home"],
    "available": False,
    "created_at": datetime(2025, 1, 1, tzinfo=UTC),
}


def embeddings(n_items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_items, 4)).astype(np.float32)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(table(SHOES, HAT, LAMP), embeddings(3))


def answered(catalogue: Catalogue, filters: Filters, now_us: int | None = None) -> list[str]:
    mask = catalogue.mask(filters, now_us=now_us)
    return [catalogue.item_ids[row] for row in np.flatnonzero(mask)]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (Filters(), ["shoe", "hat"]),
        (Filters(available_only=False), ["shoe", "hat", "lamp"]),
        (Filters(category=("Wear",)), ["shoe", "hat"]),
        (Filters(category=("Wear", "Hats")), ["hat"]),
        (Filters(category=("Hats",)), []),
        (Filters(category=("Wear", "Hats", "Caps")), []),
        (Filters(price_min=20.0, price_max=20.0), ["hat"]),
        (Filters(price_min=0.0, available_only=False), ["shoe", "hat"]),
        (Filters(attributes={"colour": "red"}), ["shoe"]),
        (Filters(attributes={"colour": "green"}), []),
    ],
)
def test_filters_keep_what_they_say(
    catalogue: Catalogue, filters: Filters, wanted: list[str]
) -> None:
    assert answered(catalogue, filters) == wanted


def test_items_created_later_are_not_there_yet(catalogue: Catalogue) -> None:
    everything = Filters(available_only=False)
    new_year_us = round(datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1e6)
    assert answered(catalogue, everything, now_us=new_year_us - 1) == ["shoe", "hat"]
    assert answered(catalogue, everything, now_us=new_year_us) == ["shoe", "hat", "lamp"]


def test_a_new_item_takes_the_next_row_and_old_rows_stay(catalogue: Catalogue) -> None:
    before = dict(catalogue.row_of)
    vectors = embeddings(2, seed=1)
    catalogue.upsert(
        table({"item_id": "vase", "category": ["Home"]}, HAT | {"price": 5.0}), vectors
    )
    assert catalogue.row_of == {**before, "vase": 3}
    assert np.allclose(catalogue.embeddings[3], vectors[0])
    assert np.allclose(catalogue.embeddings[before["hat"]], vectors[1])
    assert catalogue.prices[before["hat"]] == 5.0


def test_a_replaced_item_loses_its_old_category_and_attributes(catalogue: Catalogue) -> None:
    catalogue.upsert(table({"item_id": "hat", "category": ["Home"]}), embeddings(1))
    assert answered(catalogue, Filters(category=("Wear",))) == ["shoe"]
    assert answered(catalogue, Filters(attributes={"colour": "blue"})) == []
    assert answered(catalogue, Filters(category=("Home",))) == ["hat"]


def test_many_upserts_keep_every_row(catalogue: Catalogue) -> None:
    vectors = embeddings(50, seed=2)
    for n in range(50):
        catalogue.upsert(table({"item_id": f"new-{n}", "price": float(n)}), vectors[n : n + 1])
    rows = catalogue.rows([f"new-{n}" for n in range(50)])
    assert np.allclose(catalogue.embeddings[rows], vectors)
    assert catalogue.prices[rows].tolist() == list(range(50))


def test_records_come_back_as_they_went_in(catalogue: Catalogue) -> None:
    changed = table(HAT | {"title": "A hat"})
    catalogue.upsert(changed, embeddings(1))
    records = catalogue.records(["hat", "lamp"])
    assert records.row(0) == changed.row(0)
    assert records.row(1) == table(LAMP).row(0)


def test_a_deleted_item_is_gone_until_it_is_upserted_again(catalogue: Catalogue) -> None:
    assert catalogue.delete(["hat", "hat", "nothing"]) == 1
    assert "hat" not in catalogue
    assert answered(catalogue, Filters()) == ["shoe"]
    with pytest.raises(UnknownItemError, match=r"got unknown \['hat'\]"):
        catalogue.rows(["hat"])
    catalogue.upsert(table(HAT), embeddings(1))
    assert answered(catalogue, Filters()) == ["shoe", "hat"]


def test_embeddings_of_another_size_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 4\), got \(1, 5\)"):
        catalogue.upsert(table(HAT), np.zeros((1, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="one row per item"):
        Catalogue(table(HAT), embeddings(2))


def test_an_item_twice_in_one_upsert_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match="unique within one upsert"):
        catalogue.upsert(table(HAT, HAT), embeddings(2))
