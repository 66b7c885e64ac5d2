import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import product

import numpy as np
import polars as pl
import pytest

from recsys.catalogue.filters import Filters
from recsys.catalogue.store import Catalogue, category_codes
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
def test_filters_keep_the_items_that_meet_their_conditions(
    catalogue: Catalogue, filters: Filters, wanted: list[str]
) -> None:
    assert answered(catalogue, filters) == wanted


def test_category_codes_agree_down_to_where_two_paths_part() -> None:
    paths = [["Wear", "Shoes"], ["Wear", "Hats"], [], ["Home", "Shoes", "a", "b", "c"]]
    codes = category_codes(paths)
    assert codes.tolist() == [[0, 1, -1, -1], [0, 2, -1, -1], [-1] * 4, [3, 4, 5, 6]]


def test_category_codes_given_before_are_kept_and_new_ones_added() -> None:
    known = {("Wear",): 0, ("Wear", "Hats"): 1}
    assert category_codes([["Home"], ["Wear", "Hats"]], known).tolist() == [
        [2, -1, -1, -1],
        [0, 1, -1, -1],
    ]
    assert known == {("Wear",): 0, ("Wear", "Hats"): 1, ("Home",): 2}


def test_items_created_after_the_moment_are_left_out(catalogue: Catalogue) -> None:
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


def test_a_price_beyond_the_bound_counts_as_unknown(catalogue: Catalogue) -> None:
    catalogue.upsert(table(HAT | {"price": sys.float_info.max}), embeddings(1))

    assert np.isnan(catalogue.prices[catalogue.row_of["hat"]])
    assert catalogue.records(["hat"])["price"].item() == sys.float_info.max


def test_a_replaced_item_loses_its_old_category_and_attributes(catalogue: Catalogue) -> None:
    catalogue.upsert(table({"item_id": "hat", "category": ["Home"]}), embeddings(1))
    assert answered(catalogue, Filters(category=("Wear",))) == ["shoe"]
    assert answered(catalogue, Filters(attributes={"colour": "blue"})) == []
    assert answered(catalogue, Filters(category=("Home",))) == ["hat"]


def test_a_catalogue_after_upserts_equals_one_built_from_its_records(
    catalogue: Catalogue,
) -> None:
    generator = np.random.default_rng(3)
    names, colours = ("shoe", "hat", "lamp", "vase", "cup"), ("red", "blue", "green")
    for step in range(40):
        path = [f"c{code}" for code in generator.integers(0, 2, generator.integers(0, 6))]
        pairs = [pair for value in generator.choice(colours, 2) for pair in colour(str(value))]
        item: dict[str, object] = {
            "item_id": names[generator.integers(0, 5)],
            "category": path,
            "price": float(step),
            "attributes": pairs[: generator.integers(0, 3)],
        }
        catalogue.upsert(table(item), embeddings(1, seed=step))
    rebuilt = Catalogue(catalogue.records(catalogue.item_ids), catalogue.embeddings.numpy())
    wanted = [Filters(), *(Filters(attributes={"colour": value}) for value in colours)]
    wanted += [
        Filters(category=path, price_min=20.0)
        for depth in range(6)
        for path in product(("c0", "c1"), repeat=depth)
    ]
    for filters in wanted:
        assert answered(catalogue, filters) == answered(rebuilt, filters), filters
    same, rebuilt_same = (
        one.categories[:, None] == one.categories for one in (catalogue, rebuilt)
    )  # the codes themselves may differ
    assert np.array_equal(same, rebuilt_same)


def count_calls(action: Callable[[], object]) -> int:
    n_calls = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return n_calls


def test_replacing_an_item_is_no_more_work_in_a_larger_catalogue() -> None:
    changed = table({"item_id": "i3", "attributes": colour("red")})
    counts = []
    for size in (10, 2_000):
        rows: list[dict[str, object]] = [
            {"item_id": f"i{n}", "attributes": colour(f"shade {n}")} for n in range(size)
        ]
        upsert = partial(Catalogue(table(*rows), embeddings(size)).upsert, changed, embeddings(1))
        upsert()  # the first call may import
        counts.append(count_calls(upsert))
    assert counts[1] < counts[0] + 1_000


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


def test_blanks_around_an_id_are_cut_off_as_in_tables(catalogue: Catalogue) -> None:
    row = catalogue.row_of["hat"]
    assert " hat\u200b" in catalogue
    assert catalogue.rows(["hat ", "\that"]).tolist() == [row, row]
    assert catalogue.records([" hat", "lamp"])["item_id"].to_list() == ["hat", "lamp"]
    assert catalogue.delete(["hat", "hat "]) == 1
    assert "hat " not in catalogue
    assert catalogue.find("hat ") == row
    assert catalogue.find(5) is None


def test_a_deleted_item_is_gone_until_it_is_added_again(catalogue: Catalogue) -> None:
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
    with pytest.raises(ValueError, match="unique within one call"):
        catalogue.upsert(table(HAT, HAT), embeddings(2))
