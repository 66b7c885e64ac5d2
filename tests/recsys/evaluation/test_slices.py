"""Groups of users, made from events by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.interactions import Interactions
from recsys.errors import DataError
from recsys.evaluation.facts import ItemFacts
from recsys.evaluation.queries import Queries
from recsys.evaluation.slices import COUNTED, label_users, means_by_user, read_users

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


def test_a_table_of_users_groups_them_by_words_thirds_and_flags(tmp_path: Path) -> None:
    """An id is as in the events: without blanks, and a number is its digits."""
    ids = [f"u{n}" for n in range(12)]
    table = pl.DataFrame(
        {
            "user_id": [f" {one} " for one in [*ids, "stranger"]],
            "region": ["north", "south", None] * 4 + ["west"],
            "age": [*range(20, 32), 90],
            "member": ["0", "1"] * 6 + ["1"],
        }
    )
    file = tmp_path / "users.csv"
    table.write_csv(file)
    wanted = {
        "region": ["north", "south", "unknown"] * 4 + ["unknown"],
        "age": ["low"] * 4 + ["middle"] * 4 + ["high"] * 4 + ["unknown"],
        "member": ["0", "1"] * 6 + ["unknown"],
    }
    assert read_users(file, [*ids, "absent"]) == wanted
    assert read_users(table, [*ids, "absent"]) == wanted
    numbers = pl.DataFrame({"user_id": [7, 8], "club": ["a", "b"]})
    assert read_users(numbers, ["8", "7"]) == {"club": ["b", "a"]}


def test_groups_of_a_table_come_after_those_that_are_counted(
    queries: Queries, before: Interactions
) -> None:
    given = {"region": ["n", "s", "n", "x"], "all alike": ["a", "a", "a", "b"]}
    some = replace(queries, user_rows=np.array([2, 0, 1]))
    found = label_users(some, before, before, facts(before), given)
    assert tuple(found) == (*COUNTED, "region")
    assert found["region"] == ["n", "n", "s"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["u", "u"], "age": [1, 2]}, "must be an id, once, got 'u' in row 2"),
        ({"user_id": ["u", None], "age": [1, 2]}, "must be an id, once, got an empty cell"),
        ({"user_id": ["u"]}, "columns beside user_id .* got none"),
        ({"user_id": ["u"], "activity": ["high"]}, r"named other than .* got \['activity'\]"),
        ({"user_id": ["u"], "tags": [["a"]]}, r"words or numbers, .* got \['tags'\]"),
        ({"person": ["u"], "age": [1]}, "user_id"),
    ],
)
def test_a_table_that_groups_nobody_is_an_error(columns: dict[str, list], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_users(pl.DataFrame(columns), ["u"])
