from collections import Counter
from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from recsys.evaluation.offpolicy import evaluate_policy
from recsys.ranking.exploration import EXPLORED, explore
from recsys.ranking.reranking import Reranker
from recsys.rules import Pin, Rules
from tests.recsys.ranking.planted_tables import NOW
from tests.recsys.ranking.test_reranking import N, make_catalogue, reranker


def draws(
    rules: Rules, rows: NDArray[np.int64], k: int, n: int
) -> list[tuple[list[int], list[float]]]:
    """Lists and their propensities for many users of one request."""
    maker = reranker(rules)
    found = [maker.order(rows, k, user) for user in range(n)]
    return [(rows[one.positions].tolist(), one.propensities.tolist()) for one in found]


CASES = {
    "many further down": (Rules(explore=0.3, seed=1), 30, 3),
    "fewer further down than places": (Rules(explore=0.8, seed=2), 6, 4),
    "nothing further down": (Rules(explore=0.5, seed=3), 3, 5),
    "all places": (Rules(explore=1.0, seed=4), 9, 3),
    "pins and a cap": (
        Rules(
            explore=0.6,
            seed=5,
            pin=[Pin("item-04", 2), Pin("item-07", 6)],
            max_per_category=2,
            category_level=1,
        ),
        20,
        4,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_propensity_is_how_often_the_item_stands_at_its_place(case: str) -> None:
    rules, n_items, k = CASES[case]
    n = 8_000
    counts: Counter[tuple[int, int]] = Counter()
    stated: dict[tuple[int, int], set[float]] = {}
    for listed, propensities in draws(rules, np.arange(n_items), k, n):
        assert len(set(listed)) == len(listed)
        for at in zip(range(k), listed, propensities, strict=False):
            counts[at[:2]] += 1
            stated.setdefault(at[:2], set()).add(at[2])
    for at, found in stated.items():
        (propensity,) = found  # whatever else the list has
        deviation = np.sqrt(propensity * (1 - propensity) / n)
        assert abs(counts[at] / n - propensity) <= 5 * deviation + 1e-12, at
    for place in range(min(k, n_items)):
        total = sum(next(iter(found)) for at, found in stated.items() if at[0] == place)
        assert total == pytest.approx(1.0)


class Forced(np.random.Generator):
    """A generator whose draws are given."""

    def __new__(cls, order: Sequence[int], numbers: Sequence[float]) -> "Forced":
        return super().__new__(cls, np.random.PCG64(0))

    def __init__(self, order: Sequence[int], numbers: Sequence[float]) -> None:
        super().__init__(np.random.PCG64(0))
        self.drawn, self.numbers = np.array(order), np.array(numbers)

    def permutation(self, n: int) -> NDArray[np.int64]:  # type: ignore[override]
        assert n == len(self.drawn)
        return self.drawn

    def random(self, n: int) -> NDArray[np.float64]:  # type: ignore[override]
        return self.numbers[:n]


@pytest.mark.parametrize(("k", "n_items", "pinned"), [(2, 5, []), (3, 5, []), (3, 6, [1, 4])])
def test_a_propensity_is_the_sum_over_all_equally_likely_draws(
    k: int, n_items: int, pinned: list[int]
) -> None:
    share, listed = 0.25, np.arange(n_items)
    n_open = k - sum(one < k for one in pinned)
    n_drawn = max(n_open, n_items - k - sum(one >= k for one in pinned))
    chances: dict[tuple[int, int], float] = {}
    stated: dict[tuple[int, int], float] = {}
    orders = list(permutations(range(n_drawn)))
    # Each place explores below the share: here in one of four equally likely cases.
    numbers = list(product((0.1, 0.3, 0.5, 0.7), repeat=n_open))
    for drawn, coins in product(orders, numbers):
        found = explore(listed, k, np.array(pinned, np.int64), share, Forced(drawn, coins))
        for place, (item, value) in enumerate(zip(*map(np.ndarray.tolist, found), strict=True)):
            at = place, item
            chances[at] = chances.get(at, 0.0) + 1 / len(orders) / len(numbers)
            assert stated.setdefault(at, value) == value
    assert stated == pytest.approx(chances)


def test_exploration_draws_from_the_places_after_the_list() -> None:
    catalogue = make_catalogue(EXPLORED + 50)
    rules = Rules(explore=1.0, seed=0)
    maker = Reranker(rules, catalogue, torch.zeros(len(catalogue)), NOW)
    rows = np.arange(len(catalogue))
    found = [maker.order(rows, 5, user) for user in range(200)]
    drawn = {row for one in found for row in one.positions.tolist()}
    assert drawn == set(range(5, 5 + EXPLORED))
    assert {value for one in found for value in one.propensities} == {1 / EXPLORED}


def test_a_seed_repeats_a_list_and_users_of_one_request_explore_independently() -> None:
    rows, seeded = np.arange(N), Rules(explore=0.5, seed=11)
    once, again = (draws(seeded, rows, 10, 5) for _ in range(2))
    assert once == again
    assert len({tuple(listed) for listed, _ in once}) == 5
    unseeded = Rules(explore=0.5)
    assert len({tuple(draws(unseeded, rows, 10, 1)[0][0]) for _ in range(5)}) > 1


def test_estimators_are_unbiased_on_the_logs_of_exploration() -> None:
    rows, k, n = np.arange(12), 4, 6_000
    rules = Rules(explore=0.5, seed=21, pin=[Pin("item-05", 2)])
    generator = np.random.default_rng(8)
    chance = generator.uniform(0.1, 0.9, size=(k, N))  # of a click, by place and item
    # A new policy: it shows other items, and none at a place that the old one has pinned otherwise.
    target = [9, 5, 11, 2]
    log = []
    for user, (listed, propensities) in enumerate(draws(rules, rows, k, n)):
        for place, (row, propensity) in enumerate(zip(listed, propensities, strict=True)):
            log.append(
                {
                    "user_id": str(user),
                    "reward": float(generator.random() < chance[place, row]),
                    "propensity": propensity,
                    "target_propensity": float(row == target[place]),
                }
            )
    value = evaluate_policy(pl.DataFrame(log))
    truth = np.mean([chance[place, row] for place, row in enumerate(target)])

    for one in (value.ips, value.snips):
        assert one.low <= truth <= one.high
        assert one.high - one.low < 0.1
    assert value.mean_weight.low <= 1 <= value.mean_weight.high
    assert not value.logged.low <= truth <= value.logged.high
