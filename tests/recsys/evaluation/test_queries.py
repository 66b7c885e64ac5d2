"""Queries against their definitions as sets, on a history small enough to read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.errors import DataError, LeakageError
from recsys.evaluation.queries import (
    SCOPES,
    ItemLists,
    Queries,
    Scope,
    build_queries,
    sample_users,
)

VIEW, BUY = "view", "purchase"
NOW_US = 100

Split = tuple[Interactions, Interactions]  # before and after the moment

# (user row, item row, kind, time)
EVENTS = [
    (0, 0, BUY, 10),
    (0, 1, VIEW, 20),
    (1, 1, BUY, 30),
    (1, 1, BUY, 40),
    (2, 2, VIEW, 50),
    # after the split
    (0, 0, BUY, 100),  # again
    (0, 1, BUY, 110),  # seen, not bought before
    (0, 1, BUY, 120),
    (0, 3, BUY, 130),  # item without history
    (1, 1, BUY, 140),  # nothing but a repeat
    (2, 0, VIEW, 150),  # no purchase
    (3, 2, BUY, 160),  # user without history
    (1, 4, VIEW, 170),
]


def interactions(
    events: Sequence[tuple[int, int, str, int]], n_users: int = 5, n_items: int = 5
) -> Interactions:
    columns = np.array([(u, i, (VIEW, BUY).index(kind), t) for u, i, kind, t in events])
    user_rows, item_rows, kinds, timestamps_us = columns.astype(np.int64).T
    return Interactions(
        user_ids=[f"u{row}" for row in range(n_users)],
        kind_names=[VIEW, BUY],
        n_items=n_items,
        user_rows=user_rows,
        item_rows=item_rows,
        kinds=kinds,
        timestamps_us=timestamps_us,
        quantities=np.ones(len(events), dtype=np.float32),
    )


@pytest.fixture
def split() -> Split:
    everything = interactions(EVENTS)
    return everything.before(NOW_US), everything.between(NOW_US, 10**6)


def answers(queries: Queries) -> dict[int, list[int]]:
    return {
        int(user): rows.tolist()
        for user, rows in zip(queries.user_rows, queries.relevant, strict=True)
    }


def test_all_asks_for_every_known_item_taken_after_the_split(split: Split) -> None:
    queries = build_queries(*split, now_us=NOW_US, scope="all", target_kinds=[BUY])
    assert answers(queries) == {0: [0, 1], 1: [1]}
    assert queries.candidates.tolist() == [True, True, True, False, False]
    assert [rows.tolist() for rows in queries.excluded] == [[], []]


def test_new_asks_only_for_what_the_user_had_not_taken(split: Split) -> None:
    queries = build_queries(*split, now_us=NOW_US, scope="new", target_kinds=[BUY])
    # The view of item 1 does not make it an old one: it had not been bought.
    assert answers(queries) == {0: [1]}
    assert [rows.tolist() for rows in queries.excluded] == [[0]]


def test_cold_asks_only_for_items_without_history(split: Split) -> None:
    queries = build_queries(*split, now_us=NOW_US, scope="cold", target_kinds=[BUY])
    assert answers(queries) == {0: [3]}
    assert queries.candidates.tolist() == [False, False, False, True, True]


def test_every_kind_counts_by_default(split: Split) -> None:
    queries = build_queries(*split, now_us=NOW_US, scope="all")
    assert answers(queries) == {0: [0, 1], 1: [1], 2: [0]}
    assert answers(build_queries(*split, now_us=NOW_US, scope="cold")) == {0: [3], 1: [4]}


def test_given_candidates_are_the_catalogue_with_or_without_history(split: Split) -> None:
    catalogue = np.array([True, False, True, True, False])
    queries = build_queries(*split, now_us=NOW_US, scope="all", candidates=catalogue)
    assert answers(queries) == {0: [0, 3], 2: [0]}
    assert queries.candidates.tolist() == catalogue.tolist()
    cold = build_queries(*split, now_us=NOW_US, scope="cold", candidates=catalogue)
    assert answers(cold) == {0: [3]}
    assert cold.candidates.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("scope", SCOPES)
def test_queries_equal_their_definition_as_sets_on_random_events(scope: Scope) -> None:
    generator = np.random.default_rng(7)
    events = [
        (*generator.integers(0, (20, 30)), (VIEW, BUY)[generator.integers(2)], time)
        for time in np.sort(generator.integers(0, 200, size=300))
    ]
    everything = interactions(events, n_users=20, n_items=30)
    train, test = everything.before(NOW_US), everything.between(NOW_US, 10**6)
    queries = build_queries(train, test, now_us=NOW_US, scope=scope, target_kinds=[BUY])
    past = [event for event in events if event[3] < NOW_US]
    known = {item for _, item, _, _ in past}
    candidates = set(range(30)) - known if scope == "cold" else known
    expected = {}
    for user in {user for user, *_ in past}:
        owned = {i for u, i, kind, _ in past if u == user and kind == BUY}
        taken = {i for u, i, kind, t in events if u == user and kind == BUY and t >= NOW_US}
        right = (taken & candidates) - (owned if scope == "new" else set())
        if right:
            expected[user] = sorted(right)
    assert answers(queries) == expected
    assert set(np.flatnonzero(queries.candidates)) == candidates


@pytest.mark.parametrize("scope", SCOPES)
def test_answers_are_candidates_and_never_excluded(split: Split, scope: Scope) -> None:
    queries = build_queries(*split, now_us=NOW_US, scope=scope)
    for right, excluded in zip(queries.relevant, queries.excluded, strict=True):
        assert queries.candidates[right].all()
        assert not set(right) & set(excluded)


def test_training_event_at_the_split_is_a_leak(split: Split) -> None:
    train, test = split
    leaking = interactions([*EVENTS[:5], (0, 3, BUY, NOW_US)])
    with pytest.raises(LeakageError, match="train must end before"):
        build_queries(leaking, test, now_us=NOW_US, scope="all")
    with pytest.raises(LeakageError, match="test must begin at"):
        build_queries(train, train, now_us=NOW_US, scope="all")


def test_nobody_left_to_ask_is_an_error(split: Split) -> None:
    train, test = split
    with pytest.raises(DataError, match=r"scope 'new' needs at least one user"):
        build_queries(
            train, test.where(test.user_rows == 1), now_us=NOW_US, scope="new", target_kinds=[BUY]
        )


def test_unknown_scope_is_an_error(split: Split) -> None:
    with pytest.raises(ValueError, match=r"scope must be one of \['all', 'new', 'cold'\]"):
        build_queries(*split, now_us=NOW_US, scope="old")  # type: ignore[arg-type]


def test_tables_with_different_rows_are_an_error(split: Split) -> None:
    train, test = split
    with pytest.raises(ValueError, match="train and test must share user and item rows"):
        build_queries(train, replace(test, n_items=6), now_us=NOW_US, scope="all")


def test_candidates_of_another_length_are_an_error(split: Split) -> None:
    with pytest.raises(ValueError, match=r"candidates must have shape \(5,\), got \(4,\)"):
        build_queries(*split, now_us=NOW_US, scope="all", candidates=np.ones(4, dtype=bool))


def test_a_sample_has_the_same_users_in_every_scope(split: Split) -> None:
    every = [build_queries(*split, now_us=NOW_US, scope=scope) for scope in ("all", "new")]
    users = set(every[0].user_rows.tolist()) | set(every[1].user_rows.tolist())
    assert sample_users(every, len(users)) == every
    for seed in range(4):
        drawn = sample_users(every, 1, seed=seed)
        (user,) = {row for one in drawn for row in one.user_rows.tolist()}
        for one in drawn:
            whole = next(each for each in every if each.scope == one.scope)
            place = whole.user_rows.tolist().index(user)
            assert one.relevant[0].tolist() == whole.relevant[place].tolist()
            assert one.excluded[0].tolist() == whole.excluded[place].tolist()
        scopes = [one.scope for one in every if user in one.user_rows]
        assert [one.scope for one in drawn] == scopes, "a scope without this user is left out"


def test_lists_in_one_array_read_like_a_list_of_arrays() -> None:
    wanted = [[4, 7], [], [1], [2, 3, 9]]
    lists = ItemLists(np.array([4, 7, 1, 2, 3, 9]), np.array([2, 2, 3, 6]))
    assert len(lists) == len(wanted)
    assert [rows.tolist() for rows in lists] == wanted
    for some in (slice(1, 3), slice(None, None, 2), slice(-2, None), slice(3, 1), slice(0, 99)):
        assert [rows.tolist() for rows in lists[some]] == wanted[some]
    assert lists[-1].tolist() == wanted[-1]
    with pytest.raises(IndexError):
        lists[4]
