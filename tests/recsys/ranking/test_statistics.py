from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.data.arrays import Floats
from recsys.data.interactions import Interactions
from recsys.errors import InvalidArgumentError
from recsys.ranking.baselines import IALS, cosine_neighbours, ease_weights
from recsys.ranking.statistics import (
    N_FACTORS,
    PERIODS,
    SHRINKAGE,
    VISIT_ITEMS,
    Statistics,
    build_statistics,
)
from tests.recsys.ranking.planted_tables import DAY, NOW, PURCHASE, VIEW, interactions

EVENTS = [
    (0, 0, 400.0),
    (0, 0, 20.0),
    (0, 1, 10.0),
    (1, 0, 350.0),
    (1, 1, 5.0),
    (1, 2, 29.0),
    (2, 2, 31.0),
    (2, 3, 364.0),
]


def statistics_of(log: Interactions, *, ridge: float = 2.0, max_items: int = 99) -> Statistics:
    found = build_statistics(
        log, NOW, target_kinds=["purchase"], ridge=ridge, ease_max_items=max_items
    )
    return of_all_items(found)


def of_all_items(found: Statistics) -> Statistics:
    """Return the statistics with a row by EASE for every item, of pads where it was not solved."""
    shape = (len(found.users), found.ease_rows.shape[1])
    rows, weights = np.full(shape, -1, dtype=np.int32), np.zeros(shape, dtype=np.float32)
    rows[found.ease_item_rows] = found.ease_rows
    weights[found.ease_item_rows] = found.ease_weights
    return replace(found, ease_rows=rows, ease_weights=weights)


def random_log(seed: int, n_items: int = 12) -> Interactions:
    """Items of very different popularity, of which the last has no event."""
    generator = np.random.default_rng(seed)
    users = generator.integers(0, 25, 200).tolist()
    items = ((n_items - 1) * generator.beta(0.8, 1.6, 200)).astype(int).tolist()
    days = generator.uniform(0.01, 90, 200).round(2).tolist()
    return interactions(
        *zip(users, items, days, strict=True),
        n_items=n_items,
        kinds=generator.integers(0, 2, 200).tolist(),
    )


def dense(rows: NDArray[np.int32], weights: Floats) -> Floats:
    """Return neighbours as a matrix (N, N), and check that no item has one twice."""
    matrix = np.zeros((len(rows), len(rows)), dtype=np.float32)
    for item in range(len(rows)):
        kept = rows[item] >= 0
        assert len(set(rows[item][kept].tolist())) == kept.sum()
        assert not weights[item][~kept].any()
        matrix[item, rows[item][kept]] = weights[item][kept]
    return matrix


def test_users_are_counted_once_in_every_period_that_reaches_their_event() -> None:
    kinds = [PURCHASE, PURCHASE, VIEW, PURCHASE, PURCHASE, VIEW, PURCHASE, PURCHASE]
    found = statistics_of(interactions(*EVENTS, kinds=kinds))
    assert (np.inf, 3.0, 1.0, 0.5, 0.25) == PERIODS
    # Windows of 30 days: ever, and the last 90, 30, 15 and 7.5 days.
    assert found.users.tolist() == [
        [2, 1, 1, 0, 0],
        [2, 2, 2, 2, 1],
        [2, 2, 1, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert found.buyers[:4].tolist() == [[2, 1, 1, 0, 0], [1] * 5, [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    # The season is the window that began one year ago: 365 to 335 days back.
    assert found.season_users.tolist() == [1, 0, 0, 1, 0, 0]


def test_the_length_of_the_window_sets_the_periods_and_the_season() -> None:
    log = interactions((0, 0, 9.0), (1, 0, 3.0), (2, 1, 358.0), (3, 1, 354.0))
    found = build_statistics(log, NOW, target_kinds=["purchase"], window_days=8.0)
    assert found.tempo.window_days == 8.0
    assert found.users[:2].tolist() == [[2, 2, 1, 1, 0], [2, 0, 0, 0, 0]]
    assert found.season_users.tolist()[:2] == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_all_neighbours_by_ease_are_its_weights(seed: int) -> None:
    log = random_log(seed)
    known = np.unique(log.item_rows)
    found = statistics_of(log)
    wanted = np.zeros((12, 12), dtype=np.float32)
    wanted[np.ix_(known, known)] = ease_weights(log.matrix()[:, known], ridge=2.0)
    np.testing.assert_allclose(dense(found.ease_rows, found.ease_weights), wanted, atol=1e-6)
    assert (np.diff(found.ease_weights[known], axis=1) <= 0).all(), "largest first"


def test_too_large_a_catalogue_has_ease_for_its_most_popular_items_alone() -> None:
    log = random_log(0)
    n_users = log.matrix().getnnz(axis=0)
    popular = np.sort(np.argsort(-n_users, kind="stable")[:5])
    found = statistics_of(log, max_items=5)
    wanted = np.zeros((12, 12), dtype=np.float32)
    wanted[np.ix_(popular, popular)] = ease_weights(log.matrix()[:, popular], ridge=2.0)
    np.testing.assert_allclose(dense(found.ease_rows, found.ease_weights), wanted, atol=1e-6)
    assert n_users[popular].min() >= np.delete(n_users, popular).max()
    whole = statistics_of(log)
    np.testing.assert_array_equal(found.cosine_weights, whole.cosine_weights)
    assert found.ease_item_rows.tolist() == popular.tolist()
    stored = build_statistics(log, NOW, target_kinds=["purchase"], ridge=2.0, ease_max_items=5)
    assert stored.ease_rows.shape == (5, 4), "other items take no memory"


@pytest.mark.parametrize("many", ["LARGE_LOG", "EASE_MAX_ITEMS"])
def test_a_large_shop_has_ease_for_fewer_items_and_ials_of_fewer_sweeps(
    many: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = random_log(0)
    size = {"LARGE_LOG": len(log), "EASE_MAX_ITEMS": log.n_items}[many]
    few = {many: size - 1, "EASE_ITEMS_OF_LARGE_SHOP": 4, "SWEEPS_OF_LARGE_SHOP": 2}
    for name, value in few.items():
        monkeypatch.setattr(f"recsys.ranking.statistics.{name}", value)
    found = build_statistics(log, NOW, target_kinds=["purchase"])
    assert len(found.ease_item_rows) == 4
    wanted = IALS(N_FACTORS, n_sweeps=2).fit(log, now_us=NOW).factors.items
    np.testing.assert_array_equal(found.item_factors, wanted)
    monkeypatch.setattr(f"recsys.ranking.statistics.{many}", size)
    assert len(build_statistics(log, NOW, target_kinds=["purchase"]).ease_item_rows) > 4


@pytest.mark.parametrize("size", [1, 5, 7])
def test_neighbours_do_not_depend_on_how_many_items_are_sorted_together(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = random_log(2)
    whole = statistics_of(log)
    monkeypatch.setattr("recsys.ranking.statistics.ITEMS_AT_ONCE", size)
    for field in fields(Statistics):
        found, wanted = (getattr(one, field.name) for one in (statistics_of(log), whole))
        assert np.array_equal(found, wanted), field.name
    matrix = log.matrix()
    blocks = [ease_weights(matrix, ridge=2.0, items_at_once=n) for n in (size, 100)]
    np.testing.assert_array_equal(*blocks)


def test_only_the_strongest_of_many_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    log = random_log(0)
    whole = statistics_of(log)
    for name in ("EASE_NEIGHBOURS", "COSINE_NEIGHBOURS", "NEXT_NEIGHBOURS"):
        monkeypatch.setattr(f"recsys.ranking.statistics.{name}", 2)
    few = statistics_of(log)
    for kind in ("ease", "next"):
        all_weights = dense(*(getattr(whole, f"{kind}_{part}") for part in ("rows", "weights")))
        kept = dense(*(getattr(few, f"{kind}_{part}") for part in ("rows", "weights")))
        for one, other in zip(kept, all_weights, strict=True):
            places = np.argsort(-np.abs(other), kind="stable")[:2]
            np.testing.assert_allclose(one[places], other[places], atol=1e-6)
            assert np.count_nonzero(one) <= 2
    assert few.cosine_rows.shape[1] == 2


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_by_cosine_are_those_of_item_knn_and_ties_go_by_row(seed: int) -> None:
    log = random_log(seed)
    found = statistics_of(log)
    matrix = cosine_neighbours(log.matrix(), n_neighbours=100, shrinkage=SHRINKAGE).toarray().T
    for item, line in enumerate(matrix):
        ranked = sorted(np.flatnonzero(line).tolist(), key=lambda row: (-line[row], row))
        kept = found.cosine_rows[item] >= 0
        assert found.cosine_rows[item][kept].tolist() == ranked
        assert found.cosine_weights[item][kept].tolist() == line[ranked].tolist()


def test_an_item_goes_with_the_candidates_that_have_it_among_their_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in item-kNN: the nearest items of the user's item would favour popular candidates."""
    log = random_log(0)
    monkeypatch.setattr("recsys.ranking.statistics.COSINE_NEIGHBOURS", 4)
    found = statistics_of(log)
    nearest = cosine_neighbours(log.matrix(), n_neighbours=4, shrinkage=SHRINKAGE).toarray()
    assert (np.count_nonzero(nearest, axis=0) > 4).any(), "one is near to many"
    for item, of_candidates in enumerate(nearest.T):
        candidates = np.flatnonzero(of_candidates).tolist()
        wanted = sorted(candidates, key=lambda row: (-of_candidates[row], row))[:4]
        kept = found.cosine_rows[item] >= 0
        assert found.cosine_rows[item][kept].tolist() == wanted


def next_by_definition(log: Interactions) -> Floats:
    """Return how often one item follows another in the next visit, as loops over visits."""
    visits_of: dict[int, list[set[int]]] = {}
    last: dict[int, int] = {}
    events = zip(log.user_rows, log.item_rows, log.timestamps_us, strict=True)
    for user, item, time_us in ((int(a), int(b), int(c)) for a, b, c in events):
        visits = visits_of.setdefault(user, [])
        if user not in last or time_us - last[user] >= DAY / 24:
            visits.append(set())
        visits[-1].add(item)
        last[user] = time_us
    n_visits = np.zeros(log.n_items)
    counts = np.zeros((log.n_items, log.n_items))
    for visits in visits_of.values():
        for place, visit in enumerate(visits):
            n_visits[list(visit)] += 1
            for item in visit:
                for other in visits[place + 1] if place + 1 < len(visits) else ():
                    counts[item, other] += item != other
    norms = np.sqrt(n_visits)
    weights = counts / (norms[:, None] * norms + SHRINKAGE)
    return weights.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_items_of_the_next_visit_are_counted_by_definition(seed: int) -> None:
    log = random_log(seed)
    found = statistics_of(log)
    matrix = dense(found.next_rows, found.next_weights)
    np.testing.assert_allclose(matrix, next_by_definition(log), rtol=1e-6)
    assert (np.diff(found.next_weights, axis=1) <= 0).all()


def test_the_visit_after_next_does_not_follow() -> None:
    found = statistics_of(interactions((0, 0, 9.0), (0, 1, 8.99), (0, 2, 5.0), (0, 3, 2.0)))
    matrix = dense(found.next_rows, found.next_weights)
    assert np.argwhere(matrix).tolist() == [[0, 2], [1, 2], [2, 3]]
    assert matrix[0, 2] == pytest.approx(1 / (1 + SHRINKAGE))


def test_a_very_large_visit_is_read_up_to_a_number_of_events() -> None:
    n_items = VISIT_ITEMS + 3
    visit = [(0, item, 9.0 - item * 1e-4) for item in range(n_items - 1)]
    found = statistics_of(interactions(*visit, (0, n_items - 1, 2.0), n_items=n_items))
    followed = dense(found.next_rows, found.next_weights)[:, n_items - 1]
    assert np.flatnonzero(followed).tolist() == list(range(VISIT_ITEMS))


def test_item_factors_are_those_of_ials() -> None:
    log = random_log(0)
    wanted = IALS(N_FACTORS).fit(log, now_us=NOW).factors.items
    found = statistics_of(log).item_factors
    np.testing.assert_array_equal(found, wanted)
    assert not found[11].any(), "it has no event"


def test_nothing_at_or_after_the_moment_counts() -> None:
    log = random_log(1)
    late = interactions(
        *zip(log.user_rows, log.item_rows, (NOW - log.timestamps_us) / DAY, strict=True),
        (0, 11, 0.0),
        (24, 5, -3.0),
        n_items=12,
        kinds=[*log.kinds.tolist(), 0, 0],
    )
    assert len(late) == len(log) + 2
    with_late, without = statistics_of(late), statistics_of(log)
    for field in fields(Statistics):
        found, wanted = (getattr(one, field.name) for one in (with_late, without))
        assert np.array_equal(found, wanted), field.name


def test_where_users_have_moments_of_their_own_later_events_of_each_count_for_nothing() -> None:
    log = random_log(1)
    moments = NOW - np.arange(log.n_users) * 3 * DAY
    past = log.timestamps_us < moments[log.user_rows]
    assert 0 < past.sum() < len(log)
    found = build_statistics(log, moments, target_kinds=["purchase"])
    end_us = int(log.timestamps_us[past].max()) + 1
    wanted = build_statistics(log.where(past), end_us, target_kinds=["purchase"])
    for field in fields(Statistics):
        one, other = (getattr(each, field.name) for each in (found, wanted))
        assert np.array_equal(one, other), field.name


def test_items_without_events_have_no_values() -> None:
    found = statistics_of(interactions(*EVENTS))
    for name in ("users", "buyers", "season_users", "item_factors"):
        assert not getattr(found, name)[4:].any(), name
    for kind in ("ease", "cosine", "next"):
        assert (getattr(found, f"{kind}_rows")[4:] == -1).all(), kind
        assert not getattr(found, f"{kind}_weights")[4:].any(), kind


@pytest.mark.parametrize("events", [[], [(0, 2, 5.0)], [(0, 2, 5.0), (0, 2, 1.0), (3, 2, 1.0)]])
def test_a_log_of_one_item_or_none_has_no_neighbours(events: list[tuple[int, int, float]]) -> None:
    found = statistics_of(interactions(*events))
    for kind in ("ease", "cosine", "next"):
        rows, weights = (getattr(found, f"{kind}_{part}") for part in ("rows", "weights"))
        assert rows.tolist() == [[-1]] * 6
        assert weights.tolist() == [[0.0]] * 6
    assert found.users[:, 0].tolist() == [0, 0, len({user for user, *_ in events}), 0, 0, 0]
    assert np.isfinite(found.item_factors).all()


def test_values_take_four_bytes_each() -> None:
    found = statistics_of(interactions(*EVENTS))
    for field in fields(Statistics):
        if field.name not in ("as_of_us", "tempo"):
            wanted = np.int32 if field.name.endswith("_rows") else np.float32
            assert getattr(found, field.name).dtype == wanted, field.name


def test_a_target_kind_that_the_log_does_not_know_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match=r"kinds must be among .* got \['buy'\]"):
        build_statistics(interactions(*EVENTS), NOW, target_kinds=["buy"])
