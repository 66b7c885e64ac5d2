from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from recsys.answers import CATEGORY_LEVELS
from recsys.catalogue.filters import Filters
from recsys.catalogue.store import Catalogue
from recsys.data.timestamps import from_us
from recsys.ranking.reranking import Reranker
from recsys.rules import Pin, Rules, Selection, Shift
from recsys.schema import ItemSchema
from tests.recsys.ranking.planted_tables import NOW

N, DIM = 40, 5
ROUNDED = 2e-7  # to which cosines of float32 are exact
NAMES = [f"item-{row:02}" for row in range(N)]
PATHS = [["Home", "Lamps"], ["Home", "Mugs"], ["Shoes"], [], ["Home", "Mugs", "Blue"]]
BEFORE, AFTER = (from_us(NOW) + timedelta(days=days) for days in (-1, 1))


def make_catalogue(n: int = N) -> Catalogue:
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(n, DIM)).astype(np.float32)
    vectors[1:4] = vectors[0]  # the best are near copies
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[5] = 0  # neither title nor picture
    table = pl.DataFrame(
        {
            "item_id": [f"item-{row:02}" for row in range(n)],
            "category": [PATHS[row % len(PATHS)] for row in range(n)],
            "attributes": [
                [{"key": "brand", "value": "Kiln" if row % 2 else "Oak"}] for row in range(n)
            ],
            "available": True,
        }
    )
    empty = ItemSchema.create_empty()
    return Catalogue(ItemSchema.cast(pl.concat([empty, table], how="diagonal_relaxed")), vectors)


CATALOGUE = make_catalogue()
USERS = np.random.default_rng(5).integers(0, 1_000, N)  # distinct users of each item


def reranker(rules: Rules, now_us: int = NOW) -> Reranker:
    return Reranker(rules, CATALOGUE, torch.tensor(np.log1p(USERS)), now_us)


def shown(rules: Rules, rows: Sequence[int] = range(N), k: int = 10) -> list[int]:
    """Item rows of the list that rules make of candidates, best first."""
    candidates = np.array(rows, dtype=np.int64)
    return candidates[reranker(rules).order(candidates, k).positions].tolist()


def by_definition(
    rules: Rules, rows: list[int], k: int, on_tie: Callable[[], object] = lambda: None
) -> list[int]:
    """The list by loops over all candidates, as the documentation says it.

    Gains that differ by no more than cosines are rounded are a tie, and ``on_tie`` is called.
    """
    now = from_us(NOW)

    def place(index: int) -> float:
        row, value = rows[index], float(index + 1)
        for one in rules.boost:
            value /= one.strength if matches(one, row) and one.holds(now) else 1
        for one in rules.bury:
            value *= one.strength if matches(one, row) and one.holds(now) else 1
        value *= float(1 + USERS[row]) ** rules.popularity_penalty
        return round(float(np.log2(value)), 9)

    rows = [rows[index] for index in sorted(range(len(rows)), key=place)]
    vectors, listed = CATALOGUE.embeddings.numpy(), []
    pins = {
        pin.position: CATALOGUE.row_of[pin.item_id]
        for pin in rules.pin
        if pin.holds(now) and CATALOGUE.row_of[pin.item_id] in rows
    }
    while len(listed) < k:
        if len(listed) + 1 in pins:
            listed.append(pins.pop(len(listed) + 1))
            continue
        there = listed + list(pins.values())
        best, most = None, -np.inf
        for index, row in enumerate(rows):
            if row in there or is_full(rules, row, there):
                continue
            alike = max((float(vectors[row] @ vectors[one]) for one in there), default=-1.0)
            gain = (1 - rules.diversity) / np.log2(2 + index) - rules.diversity * alike
            if abs(gain - most) <= ROUNDED:
                on_tie()
            if gain > most + ROUNDED:
                best, most = row, gain
        if best is None and not pins:
            break
        listed.append(pins.pop(min(pins)) if best is None else best)
    return listed


def matches(selection: Selection, row: int) -> bool:
    return (
        (not selection.item_ids or NAMES[row] in selection.item_ids)
        and PATHS[row % len(PATHS)][: len(selection.category)] == list(selection.category)
        and selection.attributes.get("brand", brand(row)) == brand(row)
    )


def brand(row: int) -> str:
    return "Kiln" if row % 2 else "Oak"


def is_full(rules: Rules, row: int, there: list[int]) -> bool:
    level, most = rules.category_level, rules.max_per_category
    if level is None or most is None or len(PATHS[row % len(PATHS)]) < level:
        return False
    prefix = PATHS[row % len(PATHS)][:level]
    return sum(PATHS[one % len(PATHS)][:level] == prefix for one in there) >= most


def test_no_rules_leave_the_order_as_it_is() -> None:
    listed = reranker(Rules()).order(np.array([7, 2, 9]), 10)
    assert listed.positions.tolist() == [0, 1, 2]
    assert listed.propensities.tolist() == [1, 1, 1]
    assert reranker(Rules(pin=[Pin("item-01", 1)])).order(np.empty(0, np.int64), 3) is not None


@pytest.mark.parametrize("diversity", [0.1, 0.3, 0.7, 1.0])
def test_diversity_is_the_largest_marginal_relevance(diversity: float) -> None:
    rows = np.random.default_rng(0).permutation(N).tolist()
    rules = Rules(diversity=diversity)
    assert shown(rules, rows, 12) == by_definition(rules, rows, 12)


def test_an_item_that_a_boost_brings_level_with_another_stays_behind_it() -> None:
    boosted = Rules(boost=[Shift(item_ids=("item-00",), strength=1.5)])
    assert shown(boosted, [1, 3, 0], 3) == [1, 3, 0]  # from the third place to the second


def test_near_copies_are_held_back_by_diversity() -> None:
    assert shown(Rules(), k=4) == [0, 1, 2, 3]
    diverse = shown(Rules(diversity=0.3), k=4)
    assert diverse[0] == 0
    assert not {1, 2, 3} & set(diverse)


periods = st.sampled_from([{}, {"since": AFTER}, {"until": AFTER}, {"since": BEFORE}])
selections = st.one_of(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda ids: {"item_ids": ids}),
    st.sampled_from(["Home", "Home > Mugs", "Shoes"]).map(lambda path: {"category": path}),
    st.just({"attributes": {"brand": "Kiln"}}),
)
shifts = st.builds(
    lambda which, when, strength: Shift(**which, **when, strength=strength),
    selections,
    periods,
    st.sampled_from([1.5, 2.0, 16.0]),
)


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    positions = draw(st.lists(st.integers(1, 14), unique=True, max_size=4))
    pinned = draw(
        st.lists(
            st.sampled_from(NAMES), unique=True, min_size=len(positions), max_size=len(positions)
        )
    )
    level = draw(st.sampled_from([None, 1, 2, 3]))
    return Rules(
        diversity=draw(st.sampled_from([0.0, 0.25, 0.9])),
        category_level=level,
        max_per_category=None if level is None else draw(st.integers(1, 3)),
        popularity_penalty=draw(st.sampled_from([0.0, 0.1, 1.0])),
        pin=[
            Pin(item_id, position, **draw(periods))
            for item_id, position in zip(pinned, positions, strict=True)
        ],
        boost=draw(st.lists(shifts, max_size=2)),
        bury=draw(st.lists(shifts, max_size=2)),
    )


candidates = st.lists(st.integers(0, N - 1), unique=True, max_size=N)


@settings(max_examples=150, deadline=None)
@given(any_rules(), candidates, st.integers(1, 15))
def test_all_rules_together_make_the_list_of_their_definition(
    rules: Rules, rows: list[int], k: int
) -> None:
    listed = shown(rules, rows, k)
    assert listed == by_definition(rules, rows, k, on_tie=reject)
    assert len(set(listed)) == len(listed) <= k


@settings(max_examples=150, deadline=None)
@given(any_rules(), candidates, st.integers(1, 15), st.sampled_from([0.0, 0.5, 1.0]))
def test_caps_hold_and_longer_lists_begin_with_shorter_ones(
    rules: Rules, rows: list[int], k: int, explore: float
) -> None:
    fields = {name: getattr(rules, name) for name in vars(rules)}
    explored = Rules(**fields | {"explore": explore, "seed": 1})
    pinned = [NAMES.index(pin.item_id) for pin in rules.pin if pin.holds(from_us(NOW))]
    listed, level = shown(explored, rows, k), rules.category_level
    if level is not None and rules.max_per_category is not None:
        prefixes = {row: tuple(PATHS[row % 5][:level]) for row in range(N)}
        counts = Counter(prefixes[row] for row in listed if len(prefixes[row]) == level)
        of_pins = Counter(prefixes[row] for row in pinned)
        for prefix, count in counts.items():
            assert count <= max(rules.max_per_category, of_pins[prefix])
    if not explore:
        assert shown(rules, rows, k + 5)[:k] == listed


def test_an_item_whose_path_ends_above_the_level_counts_for_no_category() -> None:
    rows = [row for row in range(N) if row % 5 in (2, 3)]  # Shoes, and no path at all
    rules = Rules(max_per_category=1, category_level=2)
    assert shown(rules, rows, 10) == rows[:10]
    assert len(shown(Rules(max_per_category=1, category_level=1), rows, 30)) == 1 + N // 5


def test_pins_stand_at_their_places_while_they_are_in_force() -> None:
    rules = Rules(
        pin=[
            Pin("item-30", 1),
            Pin("item-31", 3, since=BEFORE, until=AFTER),
            Pin("item-32", 2, until=BEFORE),
            Pin("item-05", 9),
        ]
    )
    assert shown(rules, k=5) == [30, 0, 31, 1, 2]
    assert shown(rules, k=9) == [30, 0, 31, 1, 2, 3, 4, 6, 5]


def test_a_pin_that_is_no_candidate_leaves_its_place_to_the_next() -> None:
    rules = Rules(pin=[Pin("item-30", 1), Pin("item-08", 2)])
    assert shown(rules, [3, 8, 4]) == [3, 8, 4]


def test_pins_that_too_few_items_leave_behind_move_up() -> None:
    rules = Rules(pin=[Pin("item-08", 7), Pin("item-09", 5)])
    assert shown(rules, [9, 8, 1]) == [1, 9, 8]


def test_places_are_multiplied_and_divided() -> None:
    assert shown(Rules(boost=[Shift(["item-09"], strength=2.1)]), k=6) == [0, 1, 2, 3, 9, 4]
    assert shown(Rules(bury=[Shift(["item-01"], strength=1.6)]), k=6) == [0, 2, 1, 3, 4, 5]
    both = Rules(boost=[Shift(["item-09"])], bury=[Shift(["item-09"])])
    assert shown(both) == list(range(10))
    expired = Rules(boost=[Shift(["item-09"], strength=9, until=BEFORE)])
    assert shown(expired) == list(range(10))


def test_popular_items_are_moved_back_by_the_number_of_their_users() -> None:
    by_place = sorted(range(N), key=lambda row: (row + 1) * (1 + USERS[row]) ** 0.4)
    assert shown(Rules(popularity_penalty=0.4)) == by_place[:10]


def test_blocked_items_are_not_allowed_while_the_block_is_in_force() -> None:
    rules = Rules(
        block=[
            Selection(category="Home > Mugs", attributes={"brand": "Oak"}),
            Selection(["item-02", "unknown"], since=BEFORE),
            Selection(["item-03"], since=AFTER),
        ]
    )
    wanted = [not (row % 5 in (1, 4) and brand(row) == "Oak") and row != 2 for row in range(N)]
    assert reranker(rules).allowed.tolist() == wanted
    later = reranker(rules, NOW + 2 * 86_400_000_000).allowed
    assert later.tolist() == [one and row != 3 for row, one in enumerate(wanted)]


def test_a_level_of_the_rules_is_one_of_the_catalogue() -> None:
    assert CATALOGUE.categories.shape[1] == CATEGORY_LEVELS
    assert CATALOGUE.mask(Filters()).all()
