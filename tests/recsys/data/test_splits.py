from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys.data.interactions import Interactions
from recsys.data.splits import (
    check_held_out,
    check_no_leak,
    cut_times,
    leave_last_out,
    split_by_time,
)
from recsys.errors import DataError, LeakageError

Event = tuple[int, int, int]  # user row, item row, time


def build(events: list[Event], n_users: int = 50) -> Interactions:
    events = sorted(events, key=lambda event: event[2])
    users, items, times = np.array(events, dtype=np.int64).reshape(-1, 3).T
    return Interactions(
        user_ids=[f"u{user}" for user in range(n_users)],
        kind_names=["view"],
        n_items=1000,
        user_rows=users,
        item_rows=items,
        kinds=np.zeros(len(events), dtype=np.int64),
        timestamps_us=times,
        quantities=np.ones(len(events), dtype=np.float32),
    )


def rows(interactions: Interactions) -> list[Event]:
    columns = (interactions.user_rows, interactions.item_rows, interactions.timestamps_us)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture
def random_events() -> Interactions:
    generator = np.random.default_rng(0)
    items = generator.permutation(1000)[:600]  # no item twice, hence no event twice
    users, times = generator.integers(0, 50, 600), generator.integers(0, 200, 600)
    return build(list(zip(users.tolist(), items.tolist(), times.tolist(), strict=True)))


def us(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1_000_000)  # type: ignore[arg-type, misc]


def test_a_split_by_time_is_the_definition(random_events: Interactions) -> None:
    train, test = split_by_time(random_events, 120)

    assert rows(train) == [event for event in rows(random_events) if event[2] < 120]
    assert rows(test) == [event for event in rows(random_events) if event[2] >= 120]
    assert train.user_ids == test.user_ids == random_events.user_ids


@pytest.mark.parametrize("at_us", [0, 10, 31])
def test_a_split_outside_the_events_is_an_error_that_tells_their_span(at_us: int) -> None:
    events = build([(0, 0, 10), (0, 1, 30)])

    with pytest.raises(DataError, match=r"inside the events, 1970-01-01T00.*, got 1970"):
        split_by_time(events, at_us)
    with pytest.raises(DataError, match="of which there are none"):
        split_by_time(build([]), at_us)


def test_leave_last_out_is_the_definition(random_events: Interactions) -> None:
    wanted: dict[str, list[Event]] = {"train": [], "validation": [], "test": []}
    histories = defaultdict(list)
    for event in rows(random_events):
        histories[event[0]].append(event)
    for history in histories.values():
        if len(history) < 3:
            wanted["train"] += history
        else:
            wanted["train"] += history[:-2]
            wanted["validation"].append(history[-2])
            wanted["test"].append(history[-1])

    split = leave_last_out(random_events)

    for name, part in split._asdict().items():
        assert sorted(rows(part)) == sorted(wanted[name])


def test_users_with_two_events_are_only_trained_on() -> None:
    split = leave_last_out(build([(0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 1, 2), (1, 2, 3)]))

    assert rows(split.test) == [(1, 2, 3)]
    assert rows(split.validation) == [(1, 1, 2)]
    assert len(split.train) == 3


def test_leaving_out_needs_a_user_with_three_events() -> None:
    with pytest.raises(DataError, match="at least one user must have three events, got none"):
        leave_last_out(build([(0, 0, 1), (0, 1, 2), (1, 0, 3)]))


def test_an_event_listed_twice_leaks_through_leave_last_out() -> None:
    events = build([(0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 2, 3)])

    with pytest.raises(LeakageError, match="no event must be in train and test; drop repeated"):
        leave_last_out(events)


def test_events_at_the_split_belong_to_the_test() -> None:
    train, test = build([(0, 0, 10), (0, 1, 20)]), build([(0, 2, 30)])

    check_no_leak(train, test, at_us=21)
    check_no_leak(train, test, at_us=30)
    with pytest.raises(LeakageError, match=r"train must end before .*, got 1 events .*item row 1 "):
        check_no_leak(train, test, at_us=20)
    with pytest.raises(LeakageError, match=r"test must begin at .*, got 1 events"):
        check_no_leak(train, test, at_us=31)


def test_training_on_what_a_user_did_later_leaks_and_on_what_others_did_does_not() -> None:
    test = build([(0, 0, 10)])

    check_no_leak(build([(1, 1, 20), (0, 1, 9)]), test)
    with pytest.raises(LeakageError, match=r"must not be later .* user row 0, item row 1 at 1970"):
        check_no_leak(build([(1, 1, 20), (0, 1, 11)]), test)


def test_the_same_user_item_and_time_on_both_sides_leaks() -> None:
    train = build([(0, 1, 10), (0, 2, 10)])

    check_no_leak(train, build([(0, 3, 10)]))
    check_no_leak(train, build([(1, 2, 10)]))
    with pytest.raises(LeakageError, match=r"no event must be in train and test.*item row 2"):
        check_no_leak(train, build([(0, 2, 10)]))


def test_a_leak_names_no_user_id() -> None:
    with pytest.raises(LeakageError) as caught:
        check_no_leak(build([(7, 1, 11)]), build([(7, 0, 10)]))

    assert "u7" not in str(caught.value)


def test_both_sides_must_share_rows() -> None:
    with pytest.raises(ValueError, match="train and test must share user and item rows"):
        check_no_leak(build([(0, 0, 1)], n_users=2), build([(0, 0, 2)], n_users=3))


def test_cuts_are_whole_horizons_before_the_split_latest_first() -> None:
    split = us(2026, 3, 31)

    assert cut_times(split, "30d", 3) == (us(2026, 3, 1), us(2026, 1, 30), us(2025, 12, 31))
    assert cut_times(split, "12h", 1) == (us(2026, 3, 30, 12),)
    assert cut_times(split, "1w12h", 2) == (us(2026, 3, 23, 12), us(2026, 3, 16))
    assert cut_times(split, "1q", 1) == (us(2025, 12, 31),)


def test_months_are_calendar_months_and_count_from_the_split() -> None:
    cuts = cut_times(us(2026, 3, 31), "1mo", 4)

    assert cuts == (us(2026, 2, 28), us(2026, 1, 31), us(2025, 12, 31), us(2025, 11, 30))


@pytest.mark.parametrize("horizon", ["", "month", "30", "-30d", "0d", "30 d", "1mo,2d", "1.5d"])
def test_a_horizon_that_is_no_duration_is_an_error(horizon: str) -> None:
    with pytest.raises(ValueError, match=r'horizon must be a duration such as "30d" or "1mo", got'):
        cut_times(0, horizon, 1)


@pytest.mark.parametrize("horizon", ["10000000d", "400y", "999999999999999999us1w50000000h"])
def test_horizons_of_more_than_a_millennium_are_an_error(horizon: str) -> None:
    assert len(cut_times(us(2026, 3, 31), "120000d", 3)) == 3
    with pytest.raises(
        ValueError, match=rf'at most "122000d", so that 3 fit into .* got .{horizon}'
    ):
        cut_times(us(2026, 3, 31), horizon, 3)


def test_at_least_one_cut_is_asked_for() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        cut_times(0, "1d", 0)


def test_a_test_event_of_a_user_whom_training_saw_leaks() -> None:
    events = build([(0, 0, 10), (1, 1, 30)], n_users=2)
    held_out = np.array([False, True])
    check_held_out(events.without_users(~held_out), held_out)
    check_held_out(events, None)
    with pytest.raises(LeakageError, match=r"held out from training, got 1 .* user row 0"):
        check_held_out(events, held_out)


def test_events_of_some_users_can_be_left_out(random_events: Interactions) -> None:
    left_out = np.arange(50) % 3 == 0
    kept = random_events.without_users(left_out)
    assert rows(kept) == [event for event in rows(random_events) if event[0] % 3]
    assert random_events.without_users(None) is random_events
