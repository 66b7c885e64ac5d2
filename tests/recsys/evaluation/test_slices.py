"""Groups of users, made from events by hand."""

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.evaluation.facts import ItemFacts
from recsys.evaluation.queries import Queries
from recsys.evaluation.slices import label_users, means_by_user

NONE = np.empty(0, dtype=np.int64)


def interactions(pairs: list[tuple[int, int]]) -> Interactions:
    users, items = np.array(pairs).T
    return Interactions(
        user_ids=["u", "v", "w"],
        kind_names=["purchase"],
        n_items=5,
        user_rows=users,
        item_rows=items,
        kinds=np.zeros(len(pairs), dtype=np.int64),
        timestamps_us=np.arange(len(pairs)),
        quantities=np.ones(len(pairs), dtype=np.float32),
    )


@pytest.fixture
def queries() -> Queries:
    return Queries(
        scope="all",
        now_us=100,
        user_rows=np.arange(3),
        relevant=[np.array([0]), np.array([0, 1]), np.array([3, 4])],
        excluded=[NONE] * 3,
        candidates=np.ones(5, dtype=bool),
    )


@pytest.fixture
def before() -> Interactions:
    """User 0 has one event, user 1 two and user 2 three; nobody took item 4."""
    return interactions([(0, 0), (1, 0), (1, 2), (2, 0), (2, 1), (2, 3)])


def facts(before: Interactions) -> ItemFacts:
    buyers = np.bincount(before.item_rows, minlength=5).astype(np.float64)
    return ItemFacts(3, buyers, np.zeros((5, 2), dtype=np.float32), {})


def test_users_are_grouped_by_activity_and_by_what_their_answers_are_like(
    queries: Queries, before: Interactions
) -> None:
    assert label_users(queries, before, before, facts(before)) == {
        "activity": ["low", "middle", "high"],
        "answers taken before": ["all", "some", "some"],
        "answers nobody had taken": ["no", "no", "yes"],
        "popularity of the answers": ["high", "middle", "low"],
    }


def test_a_grouping_with_one_group_is_left_out(queries: Queries) -> None:
    before = interactions([(0, 2), (1, 2), (2, 2)])  # all users, and all answers, are alike
    assert label_users(queries, before, before, facts(before)) == {}


def test_the_mean_of_a_users_answers_counts_every_answer_once(queries: Queries) -> None:
    found = means_by_user(queries, np.array([1.0, 3.0, 0.0, 5.0, 6.0]))
    np.testing.assert_allclose(found, [1.0, 2.0, 5.5])
