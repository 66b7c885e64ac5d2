import logging

import numpy as np
import polars as pl
import pytest

from recsys.ranking.relations import NO_RELATIONS, Related, related_items
from recsys.schema import RELATION_KINDS

N_ITEMS = 9
IDS = [f"i{(row * 4) % N_ITEMS}" for row in range(N_ITEMS)]  # in another order than that of rows
Relation = tuple[str, str, str, float]


def table_of(relations: list[Relation]) -> pl.DataFrame:
    return pl.DataFrame(relations, ["left", "right", "kind", "weight"], orient="row")


def drawn(seed: int) -> list[Relation]:
    """Relations of random items; the last two have none, and some pairs have several kinds."""
    rng = np.random.default_rng(seed)
    pairs = [(left, right) for left in range(N_ITEMS - 2) for right in range(left)]
    found = []
    for kind in RELATION_KINDS:
        for pair in rng.permutation(pairs)[:8]:
            left, right = rng.permutation(pair).tolist()
            found.append((IDS[left], IDS[right], kind, round(float(rng.uniform(0.1, 5)), 3)))
    return [found[place] for place in rng.permutation(len(found))]


def strengths(related: Related) -> dict[tuple[str, str, str], float]:
    """Return the weight by kind, item that a user has, and item that they may want."""
    found = {}
    for kind, rows, weights in zip(RELATION_KINDS, *related, strict=True):
        for item, (near, values) in enumerate(zip(rows.tolist(), weights.tolist(), strict=True)):
            assert values == sorted(values, reverse=True), "the strongest come first"
            for row, value in zip(near, values, strict=True):
                assert (row == -1) == (value == 0)
                if row >= 0:
                    assert (kind, IDS[item], IDS[row]) not in found
                    found[kind, IDS[item], IDS[row]] = value
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_relation_leads_from_each_item_to_the_other_and_a_replacement_to_the_new_one(
    seed: int,
) -> None:
    relations, wanted = drawn(seed), {}
    for left, right, kind, weight in relations:
        wanted[kind, right, left] = weight
        if kind != "replaces":
            wanted[kind, left, right] = weight
    found = strengths(related_items(table_of(relations), IDS))
    assert found == pytest.approx(wanted)


def test_both_arrays_are_as_wide_as_the_item_with_most_relations_of_a_kind() -> None:
    related = related_items(table_of([("i0", f"i{n}", "part_of", n) for n in range(1, 4)]), IDS)
    assert related.rows.shape == related.weights.shape == (3, N_ITEMS, 3)
    assert (related.rows.dtype, related.weights.dtype) == (np.int32, np.float32)


def test_an_item_keeps_its_heaviest_relations_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relations: list[Relation] = [("i0", f"i{n}", "goes_with", n) for n in (3, 1, 4, 2)]
    with caplog.at_level(logging.WARNING):
        found = strengths(related_items(table_of(relations), IDS, most=2))
    assert {wanted: value for (_, has, wanted), value in found.items() if has == "i0"} == {
        "i4": 4.0,
        "i3": 3.0,
    }
    assert found["goes_with", "i1", "i0"] == 1.0, "others have no more than two"
    assert caplog.messages == [
        "1 items have more than 2 relations of the kind goes_with, such as i0 with 4; the heaviest "
        "of them count"
    ]


def test_without_a_table_no_item_is_related() -> None:
    assert related_items(None, IDS) is NO_RELATIONS
    assert NO_RELATIONS.rows.size == NO_RELATIONS.weights.size == 0
