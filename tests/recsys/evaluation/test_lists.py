"""Lists from elsewhere against sorting as a loop, and what happens to each kind of bad row."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.arrays import Ints
from recsys.errors import DataError, SchemaError
from recsys.evaluation.lists import ForeignList, read_list
from recsys.evaluation.protocol import evaluate
from recsys.evaluation.queries import Queries

USERS = ["ann", "bob", "cy"]
ITEMS = ["a", "b", "c", "d", "e"]
NONE = np.empty(0, dtype=np.int64)


def read(rows: dict[str, list[Any]] | pl.DataFrame, name: str = "als") -> ForeignList:
    return read_list(pl.DataFrame(rows), name=name, user_ids=USERS, item_ids=ITEMS)


def queries(*, excluded: list[Ints] | None = None, on_offer: str = "abcde") -> Queries:
    """Everybody takes "a"."""
    return Queries(
        scope="new" if excluded else "all",
        now_us=0,
        user_rows=np.arange(3),
        relevant=[np.array([0])] * 3,
        excluded=excluded or [NONE] * 3,
        candidates=np.array([item in on_offer for item in ITEMS]),
    )


def shown(one: ForeignList, asked: Queries, k: int = 5) -> list[str]:
    ranked = evaluate("als", one.scores, asked, ks=[k]).ranked
    return ["".join(ITEMS[row] for row in rows if row >= 0) for rows in ranked]


@given(
    st.lists(
        st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS), st.floats(-1e9, 1e9)),
        min_size=1,
        max_size=20,
        unique_by=(lambda row: row[:2], lambda row: row[2]),
    )
)
def test_every_user_gets_the_listed_items_by_falling_score(rows: list[tuple]) -> None:
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "score"], orient="row")
    expected = [
        "".join(item for who, item, _ in sorted(rows, key=lambda row: -row[2]) if who == user)
        for user in USERS
    ]
    assert shown(read(table), queries()) == expected


def test_scores_that_only_differ_in_double_precision_are_not_ties() -> None:
    near = {"user_id": ["ann"] * 2, "item_id": ["a", "b"], "score": [1.0, 1.0 + 1e-12]}
    assert shown(read(near), queries())[0] == "ba"


def test_a_lower_rank_is_better_and_the_score_counts_where_there_are_both() -> None:
    rows: dict[str, list[Any]] = {"user_id": ["ann"] * 2, "item_id": ["a", "b"], "rank": [2, 1]}
    assert shown(read(rows), queries())[0] == "ba"
    assert shown(read({**rows, "score": [0.9, 0.1]}), queries())[0] == "ab"


def test_ties_are_put_in_the_order_that_every_systems_ties_are_put_in() -> None:
    tied = {"user_id": ["ann"] * 5, "item_id": ITEMS, "score": [0.5] * 5}
    reverse = {"user_id": ["ann"] * 5, "item_id": ITEMS[::-1], "rank": [7] * 5}
    silent = evaluate(
        "silent", lambda rows: np.zeros((len(rows), 5), np.float32), queries(), ks=[5]
    )
    expected = "".join(ITEMS[row] for row in silent.ranked[0])
    assert shown(read(tied), queries())[0] == shown(read(reverse), queries())[0] == expected


def test_the_best_row_of_a_repeated_item_stays_and_the_others_are_counted() -> None:
    rows = {
        "user_id": ["ann"] * 4 + ["bob"],
        "item_id": ["a", "b", "a", "a", "a"],
        "score": [1.0, 2.0, 3.0, 3.0, 1.0],
    }
    one = read(rows)
    assert shown(one, queries())[0] == "ab"
    assert one.counts(queries(), k=1).repeated == 2


def test_unknown_users_and_items_are_removed_counted_and_leave_no_gap() -> None:
    rows = {
        "user_id": ["ann", "ann", "who", "who", "cy"],
        "item_id": ["zzz", "a", "a", "zzz", "c"],
        "score": [9.0, 1.0, 1.0, 1.0, 1.0],
    }
    one = read(rows)
    assert shown(one, queries()) == ["a", "", "c"]
    counts = one.counts(queries(), k=1)
    assert (counts.rows, counts.unknown_users, counts.unknown_items) == (5, 2, 1)


def test_users_without_a_list_count_as_zero_and_users_with_too_short_a_list_are_counted() -> None:
    rows = {"user_id": ["ann", "ann", "bob"], "item_id": ["b", "a", "a"], "score": [2.0, 1.0, 1.0]}
    one = read(rows)
    result = evaluate("als", one.scores, queries(), ks=[2])
    np.testing.assert_allclose(result.per_user["mrr@2"], [1 / 2, 1, 0])
    counts = one.counts(queries(), k=2)
    assert (counts.users_without, counts.users_short) == (1, 1)


def test_what_the_user_had_taken_or_was_not_on_offer_is_removed_and_counted() -> None:
    rows = {"user_id": ["ann"] * 3, "item_id": ["e", "b", "a"], "rank": [1, 2, 3]}
    asked = queries(excluded=[np.array([1, 3]), NONE, NONE], on_offer="abcd")
    one = read(rows)
    assert shown(one, asked)[0] == "a"
    counts = one.counts(asked, k=2)
    assert (counts.taken_before, counts.not_on_offer, counts.users_short) == (1, 1, 1)


def test_the_counts_are_said_in_a_sentence_and_only_those_that_are_not_zero() -> None:
    rows = {"user_id": ["ann", "ann", "who"], "item_id": ["a", "a", "a"], "score": [1.0, 2.0, 3.0]}
    assert read(rows).counts(queries(), k=1).sentence() == (
        "removed rows: 1 repeated, 1 of unknown users; users without a list, who score 0: 2"
    )
    everyone = {"user_id": USERS, "item_id": ["a"] * 3, "score": [1.0] * 3}
    assert read(everyone).counts(queries(), k=1).sentence() == "removed rows: none"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_files_of_every_format_say_the_same(suffix: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": ["ann"] * 2, "item_id": ["a", "b"], "score": [1e-7, 2e-7]})
    file = tmp_path / f"als.{suffix}"
    getattr(table, f"write_{suffix}")(file)
    one = read_list(file, name="als", user_ids=USERS, item_ids=ITEMS)
    assert shown(one, queries())[0] == "ba"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("column", ["score", "rank"])
def test_score_or_rank_that_is_not_a_finite_number_is_an_error(
    column: str, bad: float | None
) -> None:
    rows = {"user_id": ["ann"] * 3, "item_id": ["a", "b", "c"], column: [1.0, bad, bad]}
    wanted = rf"list als: {column} must be a finite number, got .* in row 2, and 2 such rows of 3"
    with pytest.raises(DataError, match=wanted):
        read(rows)


def test_score_in_words_is_an_error_that_names_it() -> None:
    rows = {"user_id": ["ann"], "item_id": ["a"], "score": ["high"]}
    with pytest.raises(DataError, match="score must be a finite number, got 'high' in row 1"):
        read(rows)


def test_missing_id_is_an_error() -> None:
    rows = {"user_id": ["ann", None], "item_id": ["a", "b"], "score": [1.0, 2.0]}
    with pytest.raises(DataError, match="user_id must be an id, got an empty cell in row 2"):
        read(rows)


def test_list_without_score_and_rank_is_an_error() -> None:
    with pytest.raises(DataError, match="list als must have a column 'score' or 'rank'"):
        read({"user_id": ["ann"], "item_id": ["a"]})


def test_list_without_a_column_of_items_is_an_error() -> None:
    with pytest.raises(SchemaError, match="column 'item_id' is missing"):
        read({"user_id": ["ann"], "score": [1.0]})


def test_empty_list_is_an_error() -> None:
    with pytest.raises(DataError, match="list als must hold rows, got none"):
        read(pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "rank": pl.Int64}))


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_probability_outside_zero_and_one_is_an_error(bad: float) -> None:
    rows = {
        "user_id": ["ann"] * 2,
        "item_id": ["a", "b"],
        "rank": [1, 2],
        "probability": [0.5, bad],
    }
    with pytest.raises(DataError, match=r"probability must be from 0 to 1, got .* row 2"):
        read(rows)
