import numpy as np
import pytest
import torch

from recsys.data.interactions import EMPTY_HISTORY
from recsys.ranking.user_events import (
    HISTORY_EVENTS,
    SIMILAR_EVENTS,
    UserEvents,
    collect_events,
)
from tests.recsys.ranking.planted_tables import DAY, NOW, PURCHASE, VIEW, history

USERS = [
    history((4, PURCHASE, 9.0), (2, VIEW, 3.01), (2, PURCHASE, 3.0), (5, VIEW, 0.0)),
    EMPTY_HISTORY,
    history((7, VIEW, 30.0)),
]


def events_of(*moments: int) -> UserEvents:
    return collect_events(USERS, np.array(moments, dtype=np.int64), "cpu")


def test_events_lie_user_after_user_with_ages_lags_and_visits() -> None:
    found = events_of(NOW, NOW, NOW)  # an event at the moment itself is not past
    assert found.users.tolist() == [0, 0, 0, 2]
    assert found.rows.tolist() == [4, 2, 2, 7]
    assert found.kinds.tolist() == [PURCHASE, VIEW, PURCHASE, VIEW]
    assert found.ages_days.tolist() == pytest.approx([9.0, 3.01, 3.0, 30.0])
    assert found.lags_days.tolist() == pytest.approx([6.0, 0.01, 0.0, 0.0], abs=1e-6)
    assert found.visits.tolist() == [1, 0, 0, 0]
    assert found.counts.tolist() == [3, 0, 1]
    assert found.latest.tolist() == [[-1, 4, 2], [-1, -1, -1], [-1, -1, 7]]


def test_each_history_ends_at_a_moment_of_its_own() -> None:
    found = events_of(NOW - 4 * DAY, NOW, NOW - 40 * DAY)
    assert (found.users.tolist(), found.rows.tolist()) == ([0], [4])
    assert found.ages_days.tolist() == [5.0]
    assert found.counts.tolist() == [1, 0, 0]


def test_users_without_a_past_have_no_events() -> None:
    found = events_of(0, 0, 0)
    assert found.rows.tolist() == []
    assert found.latest.shape == (3, 0)
    assert found.sum_by_user(torch.empty(0, 2)).tolist() == [[0.0, 0.0]] * 3
    assert found.latest_by_user(torch.empty(0)).tolist() == [0.0] * 3


def test_values_are_summed_and_the_last_is_found_for_each_user() -> None:
    found = events_of(NOW, NOW, NOW)
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert found.sum_by_user(values).tolist() == [7.0, 0.0, 8.0]
    assert found.sum_by_user(values[:, None].expand(-1, 2)).tolist() == [
        [7.0] * 2,
        [0.0] * 2,
        [8.0] * 2,
    ]
    assert found.latest_by_user(values).tolist() == [4.0, 0.0, 8.0]


def test_of_a_very_long_history_the_end_is_kept() -> None:
    n_events = HISTORY_EVENTS + 20
    long = history(*((n, VIEW, 900.0 - n / 10) for n in range(n_events)))
    found = collect_events([long], np.array([NOW]), "cpu")
    assert found.rows.tolist() == list(range(20, n_events))
    assert found.latest.tolist() == [list(range(n_events - SIMILAR_EVENTS, n_events))]


def test_each_of_the_last_items_is_there_once_at_its_last_event() -> None:
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 30, length).tolist() for length in (1, 2, 40, SIMILAR_EVENTS, 90)]
    users = [
        history(*((row, VIEW, 900.0 - n) for n, row in enumerate(of_user))) for of_user in rows
    ]
    found = collect_events(users, np.full(len(users), NOW), "cpu")
    for of_user, latest in zip(rows, found.latest.tolist(), strict=True):
        backwards = list(dict.fromkeys(of_user[::-1][:SIMILAR_EVENTS]))
        pads = [-1] * (len(latest) - len(backwards))
        assert latest == pads + backwards[::-1]
