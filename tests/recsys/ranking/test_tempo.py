import numpy as np
import pytest

from recsys.ranking.tempo import VISIT_PAUSE_US, Tempo, measure_tempo, visit_numbers
from tests.recsys.ranking.planted_tables import DAY, interactions

HOUR, MINUTE = 1 / 24, 1 / 24 / 60


def visits_of(user: int, *days_ago: float) -> list[tuple[int, int, float]]:
    return [(user, n % 6, days) for n, days in enumerate(days_ago)]


def test_the_pause_is_the_median_over_users_of_each_users_own_median() -> None:
    log = interactions(
        *visits_of(0, 100, 98, 96, 94, 92, 90, 88, 86, 84, 82, 80),  # always 2 days
        *visits_of(1, 100, 93, 90, 60),  # 7, 3 and 30 days: 7
        *visits_of(2, 100, 80),  # 20 days
    )
    assert measure_tempo(log, 30.0) == Tempo(pause_days=7.0, window_days=30.0)


def test_of_an_even_number_of_pauses_the_lower_middle_one_is_the_users() -> None:
    log = interactions(*visits_of(0, 100, 99, 95, 85, 65))  # 1, 4, 10 and 20 days
    assert measure_tempo(log, 30.0).pause_days == 4.0


def test_of_an_even_number_of_users_it_is_halfway_between_the_middle_two() -> None:
    log = interactions(*visits_of(0, 100, 98), *visits_of(1, 100, 92))
    assert measure_tempo(log, 30.0).pause_days == 5.0


@pytest.mark.parametrize("seed", range(5))
def test_any_log_has_the_tempo_of_its_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    users, days = generator.integers(0, 8, 60), generator.exponential(3.0, 60)
    log = interactions(*zip(users.tolist(), [0] * 60, days.tolist(), strict=True))
    medians = []
    for user in range(8):
        times = log.timestamps_us[log.user_rows == user]
        pauses = sorted(pause for pause in np.diff(times).tolist() if pause >= VISIT_PAUSE_US)
        if pauses:
            medians.append(pauses[(len(pauses) - 1) // 2] / DAY)
    assert measure_tempo(log, 30.0).pause_days == pytest.approx(float(np.median(medians)))


def test_events_of_one_visit_are_no_pause() -> None:
    log = interactions(*visits_of(0, 10.0, 10 - MINUTE, 10 - 2 * MINUTE, 4.0, 4 - 59 * MINUTE))
    assert measure_tempo(log, 30.0).pause_days == pytest.approx(6 - 2 * MINUTE)


def test_the_order_of_other_users_events_does_not_matter() -> None:
    log = interactions(*visits_of(0, 90, 60, 30), *visits_of(1, 91, 61, 31))
    assert measure_tempo(log, 5.0).pause_days == 30.0


@pytest.mark.parametrize("events", [[], visits_of(0, 3), visits_of(0, 9) + visits_of(1, 3)])
def test_where_nobody_came_twice_the_pause_is_the_window(
    events: list[tuple[int, int, float]],
) -> None:
    assert measure_tempo(interactions(*events), 14.0) == Tempo(14.0, 14.0)


def test_a_pause_is_never_shorter_than_that_between_two_visits() -> None:
    assert measure_tempo(interactions(*visits_of(0, 3)), 1e-3).pause_days == pytest.approx(HOUR)
    log = interactions(*visits_of(0, 3, 3 - HOUR))
    assert measure_tempo(log, 1e-3).pause_days == pytest.approx(HOUR)


def test_a_visit_ends_with_an_hour_without_events_or_with_its_user() -> None:
    users = np.array([0, 0, 0, 0, 2, 2, 3])
    hours = np.array([1.0, 1.9, 2.9, 2.9, 2.9, 3.1, 3.1])
    times_us = np.round(hours * HOUR * DAY).astype(np.int64)
    assert visit_numbers(users, times_us).tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_no_events_are_no_visits() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert visit_numbers(nothing, nothing).tolist() == []
