from collections import Counter

import numpy as np
import pytest

from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.training.visits import (
    VISIT_PAUSE_US,
    OrderedEvents,
    Visits,
    build_visits,
    draw_visits,
    order_events,
)

DAY, MINUTE = MICROSECONDS_PER_DAY, 60_000_000
FOREVER_US = np.iinfo(np.int64).max


def events(*rows: tuple[int, int]) -> OrderedEvents:
    """Return events from pairs (user, time), sorted by user, then time; items are numbered."""
    users, times_us = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    numbers = np.arange(len(rows))
    return OrderedEvents(users, numbers, np.zeros_like(numbers), times_us)


def random_events(seed: int) -> OrderedEvents:
    """Return events in bursts, many at equal times; some users have no events."""
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


def as_rows(visits: Visits) -> list[tuple[int, ...]]:
    columns = (
        visits.users,
        visits.times_us,
        visits.history_starts,
        visits.visit_starts,
        visits.target_stops,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("horizon_days", [0.0, 0.02, 3.0, 100.0])
@pytest.mark.parametrize("until_us", [FOREVER_US, 7 * DAY, 7 * DAY + 25 * MINUTE])
def test_visits_match_their_definition_in_loops(
    seed: int, horizon_days: float, until_us: int
) -> None:
    ordered = random_events(seed)
    visits = build_visits(ordered, horizon_days, until_us=until_us)
    wanted = by_loops(ordered, horizon_days, until_us)
    assert len(wanted) > 20
    assert as_rows(visits) == wanted


def test_a_visit_begins_after_a_pause() -> None:
    pause = VISIT_PAUSE_US
    ordered = events((0, 0), (0, pause - 1), (0, 2 * pause - 2), (0, 3 * pause - 2))
    visits = build_visits(ordered, 1.0, until_us=FOREVER_US)
    assert visits.times_us.tolist() == [0, 3 * pause - 2]


def test_a_visit_begins_whatever_another_user_did_just_before() -> None:
    ordered = events((0, 0), (0, DAY), (1, DAY), (1, DAY + MINUTE))
    visits = build_visits(ordered, 1.0, until_us=FOREVER_US)
    assert as_rows(visits) == [(0, 0, 0, 0, 2), (0, DAY, 0, 1, 2), (1, DAY, 2, 2, 4)]


def test_events_at_one_time_are_targets_together() -> None:
    ordered = events((0, 0), (0, DAY), (0, DAY), (0, DAY + 1))
    visits = build_visits(ordered, 0.0, until_us=FOREVER_US)
    assert as_rows(visits) == [(0, 0, 0, 0, 1), (0, DAY, 0, 1, 3)]


def test_the_horizon_is_inclusive_and_the_end_of_training_exclusive() -> None:
    ordered = events((0, 0), (0, DAY), (0, 2 * DAY), (0, 3 * DAY))
    assert build_visits(ordered, 2.0, until_us=FOREVER_US).target_stops.tolist() == [3, 4, 4, 4]
    assert build_visits(ordered, 2.0, until_us=2 * DAY).target_stops.tolist() == [2, 2]
    assert build_visits(ordered, 2.0, until_us=2 * DAY + 1).target_stops.tolist() == [3, 3, 3]


def test_without_events_before_the_end_there_are_no_visits() -> None:
    assert len(build_visits(random_events(0), 3.0, until_us=0)) == 0
    empty = OrderedEvents(*(np.empty(0, dtype=np.int64) for _ in range(4)))
    assert len(build_visits(empty, 3.0, until_us=FOREVER_US)) == 0


def test_events_are_sorted_by_user_then_time_and_ties_keep_their_order() -> None:
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


def test_taking_visits_takes_every_field() -> None:
    visits = build_visits(random_events(0), 3.0, until_us=FOREVER_US)
    rows = as_rows(visits)
    assert as_rows(visits.take(np.array([4, 2]))) == [rows[4], rows[2]]
    late = visits.times_us > 5 * DAY
    assert as_rows(visits.take(late)) == [row for row in rows if row[1] > 5 * DAY]


@pytest.mark.parametrize("per_user", [1, 3, 1_000])
def test_each_user_gives_all_visits_up_to_the_limit(per_user: int) -> None:
    visits = build_visits(random_events(0), 3.0, until_us=FOREVER_US)
    drawn = draw_visits(visits, per_user, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == len(drawn)
    has = Counter(visits.users.tolist())
    wanted = {user: min(count, per_user) for user, count in has.items()}
    assert Counter(visits.users[drawn].tolist()) == wanted


def test_every_visit_of_a_user_is_drawn_equally_often() -> None:
    visits = build_visits(random_events(0), 3.0, until_us=FOREVER_US)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([draw_visits(visits, 2, rng) for _ in range(2_000)])
    counts = np.bincount(drawn, minlength=len(visits))
    expected = 2_000 * 2 / np.bincount(visits.users)[visits.users]
    np.testing.assert_allclose(counts, expected, rtol=0.2)


def test_drawn_visits_mix_users_and_depend_on_the_generator_alone() -> None:
    visits = build_visits(random_events(0), 3.0, until_us=FOREVER_US)
    one, same, other = (draw_visits(visits, 4, np.random.default_rng(s)) for s in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()
    users = visits.users[one]
    assert (np.diff(users) != 0).sum() > len(np.unique(users))  # more turns than sorted users have
