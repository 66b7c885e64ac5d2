from collections import Counter

import numpy as np
import pytest

from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.training.moments import (
    VISIT_PAUSE_US,
    Moments,
    OrderedEvents,
    build_moments,
    draw_moments,
    order_events,
)

DAY, MINUTE = MICROSECONDS_PER_DAY, 60_000_000
FOREVER_US = np.iinfo(np.int64).max


def events(*rows: tuple[int, int]) -> OrderedEvents:
    """Events as (user, time), in the order user, then time; items are numbered as they come."""
    users, times_us = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    numbers = np.arange(len(rows))
    return OrderedEvents(users, numbers, np.zeros_like(numbers), times_us)


def random_events(seed: int) -> OrderedEvents:
    """Return events in bursts, many at equal times, of users some of whom have none."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.choice([0, 1, 3, 4, 7], 120))
    times_us = rng.integers(0, 12, 120) * DAY + rng.integers(0, 5, 120) * 25 * MINUTE
    order = np.lexsort((times_us, users))
    return events(*zip(users[order].tolist(), times_us[order].tolist(), strict=True))


def by_loops(ordered: OrderedEvents, horizon_days: float, until_us: int) -> list[tuple[int, ...]]:
    found = []
    for user in sorted(set(ordered.users.tolist())):
        own = [place for place, one in enumerate(ordered.users) if one == user]
        for time in sorted({int(ordered.times_us[place]) for place in own}):
            earlier = [place for place in own if ordered.times_us[place] < time]
            if earlier and time - ordered.times_us[earlier[-1]] < VISIT_PAUSE_US:
                continue
            if time >= until_us:
                continue
            targets = [
                place
                for place in own
                if time <= ordered.times_us[place] <= time + horizon_days * DAY
                and ordered.times_us[place] < until_us
            ]
            found.append((user, time, own[0], targets[0], targets[-1] + 1))
    return found


def as_rows(moments: Moments) -> list[tuple[int, ...]]:
    columns = (moments.users, moments.times_us, moments.starts, moments.ends, moments.stops)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("horizon_days", [0.0, 0.02, 3.0, 100.0])
@pytest.mark.parametrize("until_us", [FOREVER_US, 7 * DAY, 7 * DAY + 25 * MINUTE])
def test_moments_are_those_of_the_definition(seed: int, horizon_days: float, until_us: int) -> None:
    ordered = random_events(seed)
    moments = build_moments(ordered, horizon_days, until_us=until_us)
    wanted = by_loops(ordered, horizon_days, until_us)
    assert len(wanted) > 20
    assert as_rows(moments) == wanted


def test_only_starts_of_visits_are_moments() -> None:
    pause = VISIT_PAUSE_US
    ordered = events((0, 0), (0, pause - 1), (0, 2 * pause - 2), (0, 3 * pause - 2))
    moments = build_moments(ordered, 1.0, until_us=FOREVER_US)
    assert moments.times_us.tolist() == [0, 3 * pause - 2]


def test_a_user_begins_a_visit_whoever_came_just_before() -> None:
    ordered = events((0, 0), (0, DAY), (1, DAY), (1, DAY + MINUTE))
    moments = build_moments(ordered, 1.0, until_us=FOREVER_US)
    assert as_rows(moments) == [(0, 0, 0, 0, 2), (0, DAY, 0, 1, 2), (1, DAY, 2, 2, 4)]


def test_events_of_one_time_are_targets_together_and_no_history_of_each_other() -> None:
    ordered = events((0, 0), (0, DAY), (0, DAY), (0, DAY + 1))
    moments = build_moments(ordered, 0.0, until_us=FOREVER_US)
    assert as_rows(moments) == [(0, 0, 0, 0, 1), (0, DAY, 0, 1, 3)]


def test_the_horizon_is_inclusive_and_the_end_of_training_exclusive() -> None:
    ordered = events((0, 0), (0, DAY), (0, 2 * DAY), (0, 3 * DAY))
    assert build_moments(ordered, 2.0, until_us=FOREVER_US).stops.tolist() == [3, 4, 4, 4]
    assert build_moments(ordered, 2.0, until_us=2 * DAY).stops.tolist() == [2, 2]
    assert build_moments(ordered, 2.0, until_us=2 * DAY + 1).stops.tolist() == [3, 3, 3]


def test_no_events_before_the_end_give_no_moments() -> None:
    assert len(build_moments(random_events(0), 3.0, until_us=0)) == 0
    empty = OrderedEvents(*(np.empty(0, dtype=np.int64) for _ in range(4)))
    assert len(build_moments(empty, 3.0, until_us=FOREVER_US)) == 0


def test_events_are_ordered_by_user_then_time_and_ties_keep_their_order() -> None:
    interactions = Interactions(
        user_ids=["a", "b"],
        kind_names=["view", "cart"],
        n_items=9,
        user_rows=np.array([1, 0, 1, 0, 1]),
        item_rows=np.array([8, 7, 6, 5, 4]),
        kinds=np.array([0, 1, 0, 0, 1]),
        timestamps_us=np.array([3, 2, 1, 2, 3]),
        quantities=np.ones(5, dtype=np.float32),
    )
    ordered = order_events(interactions)
    assert ordered.users.tolist() == [0, 0, 1, 1, 1]
    assert ordered.rows.tolist() == [7, 5, 6, 8, 4]
    assert ordered.kinds.tolist() == [1, 0, 0, 0, 1]
    assert ordered.times_us.tolist() == [2, 2, 1, 3, 3]


def test_taking_moments_takes_every_field() -> None:
    moments = build_moments(random_events(0), 3.0, until_us=FOREVER_US)
    rows = as_rows(moments)
    assert as_rows(moments.take(np.array([4, 2]))) == [rows[4], rows[2]]
    late = moments.times_us > 5 * DAY
    assert as_rows(moments.take(late)) == [row for row in rows if row[1] > 5 * DAY]


@pytest.mark.parametrize("per_user", [1, 3, 1_000])
def test_each_user_gives_as_many_moments_as_it_has_up_to_the_limit(per_user: int) -> None:
    moments = build_moments(random_events(0), 3.0, until_us=FOREVER_US)
    drawn = draw_moments(moments, per_user, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == len(drawn)
    has = Counter(moments.users.tolist())
    wanted = {user: min(count, per_user) for user, count in has.items()}
    assert Counter(moments.users[drawn].tolist()) == wanted


def test_every_moment_of_a_user_is_drawn_equally_often() -> None:
    moments = build_moments(random_events(0), 3.0, until_us=FOREVER_US)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw_moments(moments, 2, rng) for _ in range(2_000)])
    counts = np.bincount(drawn, minlength=len(moments))
    expected = 2_000 * 2 / np.bincount(moments.users)[moments.users]
    np.testing.assert_allclose(counts, expected, rtol=0.2)


def test_users_are_mixed_and_the_draw_is_a_function_of_the_generator() -> None:
    moments = build_moments(random_events(0), 3.0, until_us=FOREVER_US)
    one, same, other = (draw_moments(moments, 4, np.random.default_rng(s)) for s in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
    users = moments.users[one]
    assert (np.diff(users) != 0).sum() > len(np.unique(users))  # more turns than sorted users have
