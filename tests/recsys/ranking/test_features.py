import math
import time
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.ranking.features import COLD_VALUES, FEATURES, ranking_features
from recsys.ranking.item_table import ItemTable, Neighbours
from recsys.ranking.profiles import HALF_LIVES, UserProfiles
from recsys.ranking.user_events import HISTORY_EVENTS, SIMILAR_EVENTS
from tests.recsys.ranking.planted_tables import (
    DAY,
    NOW,
    PURCHASE,
    VIEW,
    Event,
    history,
    item_table,
    profiles_of,
)

N_ITEMS, DIM = 12, 6
EVERYTHING = torch.arange(N_ITEMS)
PERIOD_NAMES = ["ever", "triple", "window", "half", "quarter"]


@pytest.fixture
def table() -> ItemTable:
    return item_table(N_ITEMS, DIM)


VECTOR = torch.nn.functional.normalize(torch.arange(1.0, DIM + 1), dim=0)

EVENTS: list[Event] = [
    (5, PURCHASE, 200.0),
    (1, VIEW, 40.0),
    (1, PURCHASE, 39.99),
    (1, PURCHASE, 39.98),  # in one visit: a view and two purchases
    (2, PURCHASE, 30.0),
    (6, PURCHASE, 30.0),
    (1, PURCHASE, 8.0),
    (5, PURCHASE, 3.0),
    (4, VIEW, 1.02),
    (3, VIEW, 1.0),
]
VISITS_BACK = [5, 4, 4, 4, 3, 3, 2, 1, 0, 0]
UNTIL = 1.0  # days from the last event to the request


def features_of(
    met: History, candidates: torch.Tensor, table: ItemTable, now_us: int = NOW
) -> torch.Tensor:
    """Return the features of each candidate (C, F) for one user alone."""
    profiles = profiles_of([met], table, now_us=now_us, vectors=VECTOR[None])
    return ranking_features(profiles, candidates, table)[0]


def decay(age: float, table: ItemTable, half_life: str) -> float:
    return float(0.5 ** ((age - UNTIL) / (HALF_LIVES[half_life] * table.tempo.pause_days)))


def total_weights(neighbours: Neighbours, item: int, weights: dict[int, float]) -> float:
    """Return what some items with their weights say of one item."""
    total = 0.0
    for row, weight in weights.items():
        for near, strength in zip(neighbours.rows[row], neighbours.weights[row], strict=True):
            total += weight * float(strength) * (int(near) == item)
    return total


def by_ials(table: ItemTable, item: int) -> float:
    """Return the score by the user factors that minimise the loss of iALS, by a dense solve."""
    factors = table.factors.double().numpy()
    has = np.isin(np.arange(N_ITEMS), [row for row, *_ in EVENTS])
    confidence = np.where(has, 10.0, 1.0)
    normal = factors.T @ (confidence[:, None] * factors) + 10.0 * np.eye(factors.shape[1])
    user = np.linalg.solve(normal, factors.T @ (confidence * has))
    return float(factors[item] @ user)


def of_content(table: ItemTable, item: int) -> dict[str, float]:
    vector: NDArray[np.float64] = table.embeddings.double().numpy()
    profile = np.sum([decay(age, table, "middle") * vector[row] for row, _, age in EVENTS], axis=0)
    similarities = [float(vector[item] @ vector[row]) for row, *_ in EVENTS]
    return {
        "user_affinity": float(vector[item] @ VECTOR.double().numpy()),
        "profile_similarity": float(vector[item] @ profile / np.linalg.norm(profile)),
        "max_similarity": max(similarities),
        "last_similarity": similarities[-1],
    }


def of_neighbours(table: ItemTable, item: int) -> dict[str, float]:
    once = {row: 1.0 for row, *_ in EVENTS}
    recent = {row: decay(age, table, "middle") for row, _, age in EVENTS}  # the latest wins
    last = {row: 1.0 for (row, *_), back in zip(EVENTS, VISITS_BACK, strict=True) if back == 0}
    return {
        "ease": total_weights(table.ease, item, once),
        "ease_recent": total_weights(table.ease, item, recent),
        "item_knn": total_weights(table.cosine, item, once),
        "item_knn_recent": total_weights(table.cosine, item, recent),
        "next_visit": total_weights(table.following, item, last),
        "ials": by_ials(table, item),
        **{
            f"related_{kind}": total_weights(neighbours, item, recent)
            for kind, neighbours in table.related.items()
        },
    }


def of_own_events(table: ItemTable, item: int) -> dict[str, float]:
    pause = table.tempo.pause_days
    bought = [age for row, kind, age in EVENTS if row == item and kind == PURCHASE]
    viewed = [age for row, kind, age in EVENTS if row == item and kind == VIEW]
    visits = {
        back
        for (row, kind, _), back in zip(EVENTS, VISITS_BACK, strict=True)
        if row == item and kind == PURCHASE
    }
    interval = (max(bought) - min(bought)) / (len(bought) - 1) if len(bought) > 1 else 0.0
    faded = {
        f"own_{name}": math.log1p(sum(decay(age, table, name) for age in bought))
        for name in HALF_LIVES
    }
    return faded | {
        "own_purchases": math.log1p(len(bought)),
        "own_interest": math.log1p(sum(decay(age, table, "short") for age in viewed)),
        "own_recency": 1 / (1 + min(bought) / pause) if bought else 0.0,
        "own_interval": math.log1p(interval / pause),
        "own_due": math.log1p(min(bought) / interval) if interval else 0.0,
        "own_visit_share": len(visits) / len(set(VISITS_BACK)),
    }


def of_popularity(table: ItemTable, item: int) -> dict[str, float]:
    users, buyers = table.users[item].tolist(), table.buyers[item].tolist()
    return {
        **{f"users_{name}": value for name, value in zip(PERIOD_NAMES, users, strict=True)},
        **{f"buyers_{name}": value for name, value in zip(PERIOD_NAMES, buyers, strict=True)},
        "season_users": float(table.season_users[item]),
        "trend": users[4] - users[1],
        "no_events": float(users[0] == 0),
    }


def of_price_and_category(table: ItemTable, item: int) -> dict[str, float]:
    prices = table.log_prices.tolist()
    paid = [(decay(age, table, "long"), prices[row]) for row, _, age in EVENTS]
    paid = [(weight, price) for weight, price in paid if not math.isnan(price)]
    usual = sum(weight * price for weight, price in paid) / sum(weight for weight, _ in paid)
    unknown = math.isnan(prices[item])
    above = 0.0 if unknown else prices[item] - usual
    found = {
        "price_gap": abs(above),
        "price_above_usual": above,
        "price_unknown": float(unknown),
    }
    for level in range(3):
        codes = table.categories[:, level].tolist()
        weights = [(codes[row], decay(age, table, "middle")) for row, _, age in EVENTS]
        known = sum(weight for code, weight in weights if code >= 0)
        same = sum(weight for code, weight in weights if code == codes[item] and code >= 0)
        found[f"category_share_{level + 1}"] = same / known
    return found


def by_definition(table: ItemTable, item: int) -> dict[str, float]:
    """Return every feature of one candidate, as loops over the history."""
    return {
        **of_content(table, item),
        **of_neighbours(table, item),
        **of_own_events(table, item),
        **of_popularity(table, item),
        **of_price_and_category(table, item),
        "age": math.log1p(0.0 if item == 3 else 10.0 * item / table.tempo.window_days),
        "age_unknown": float(item == 3),
        "history_length": math.log1p(len(EVENTS)),
        "n_visits": math.log1p(len(set(VISITS_BACK))),
        "days_away": math.log1p(UNTIL / table.tempo.pause_days),
    }


@pytest.mark.parametrize("item", range(N_ITEMS))
def test_every_feature_equals_its_definition(table: ItemTable, item: int) -> None:
    found = features_of(history(*EVENTS), torch.tensor([item]), table)[0]
    wanted = by_definition(table, item)
    assert set(wanted) == set(FEATURES)
    for name, value in zip(FEATURES, found.tolist(), strict=True):
        assert value == pytest.approx(wanted[name], abs=1e-5), name


def test_every_feature_differs_between_users_or_between_items(table: ItemTable) -> None:
    found = ranking_features(profiles_of(USERS, table), EVERYTHING, table).reshape(
        -1, len(FEATURES)
    )
    constant = [
        name for name, values in zip(FEATURES, found.unbind(dim=1), strict=True) if not values.std()
    ]
    assert constant == ([] if (table.users[:, 0] == 0).any() else ["no_events"])


def test_a_kind_without_relations_is_a_feature_of_zeros(table: ItemTable) -> None:
    kinds = ("goes_with", "replaces", "part_of")
    columns = [FEATURES.index(f"related_{kind}") for kind in kinds]
    fewer = replace(table, related={"part_of": table.related["part_of"]})
    found, whole = (features_of(history(*EVENTS), EVERYTHING, one) for one in (fewer, table))
    assert not found[:, columns[:2]].any()
    assert whole[:, columns[:2]].any()
    others = [column for column in range(len(FEATURES)) if column not in columns[:2]]
    torch.testing.assert_close(found[:, others], whole[:, others])


def test_relations_are_known_of_an_item_whose_events_are_hidden() -> None:
    assert not [name for name in COLD_VALUES if name.startswith("related")]


def test_features_have_one_name_each() -> None:
    assert [name for name, count in Counter(FEATURES).items() if count > 1] == []
    assert set(COLD_VALUES) < set(FEATURES)


def test_the_features_of_a_candidate_do_not_depend_on_the_others(table: ItemTable) -> None:
    whole = features_of(history(*EVENTS), EVERYTHING, table)
    part = features_of(history(*EVENTS), torch.tensor([7, 2]), table)
    torch.testing.assert_close(part, whole[[7, 2]])


USERS = [
    history(*EVENTS),
    EMPTY_HISTORY,
    history((9, PURCHASE, 3.0), (9, PURCHASE, 2.0), (3, VIEW, -1.0)),
    history(*((n * 7 % N_ITEMS, n % 2, 400.0 - n) for n in range(130))),
]
VECTORS = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))
MOMENTS = [NOW, NOW - DAY, NOW - 5 * DAY // 2, NOW - 300 * DAY]


@pytest.mark.parametrize("spread_at_once", [1, 3, 8_000])
@pytest.mark.parametrize("moments", [[NOW] * 4, MOMENTS])
def test_users_together_have_the_features_that_each_has_alone(
    table: ItemTable, moments: list[int], spread_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.ranking.item_table.SPREAD_AT_ONCE", spread_at_once)
    profiles = profiles_of(USERS, table, now_us=moments, vectors=VECTORS)
    found = ranking_features(profiles, EVERYTHING, table)
    for user, met in enumerate(USERS):
        one = profiles_of([met], table, now_us=moments[user], vectors=VECTORS[user, None])
        alone = ranking_features(one, EVERYTHING, table)[0]
        torch.testing.assert_close(found[user], alone, atol=0.0, rtol=0.0)


def test_each_user_may_have_candidates_of_their_own(table: ItemTable) -> None:
    own = torch.tensor([[3, 9, 0], [5, 5, 1], [9, 3, 2], [11, 0, 7]])
    profiles = profiles_of(USERS, table, now_us=MOMENTS, vectors=VECTORS)
    whole = ranking_features(profiles, EVERYTHING, table)
    found = ranking_features(profiles, own, table)
    for user, rows in enumerate(own):
        torch.testing.assert_close(found[user], whole[user, rows])


def test_each_user_is_read_up_to_a_moment_of_their_own(table: ItemTable) -> None:
    profiles = profiles_of([history(*EVENTS)] * 2, table, now_us=[NOW, NOW - 5 * DAY])
    found = ranking_features(profiles, EVERYTHING, table)
    earlier = profiles_of(
        [history(*EVENTS[:-3])] * 2, table, now_us=NOW - 5 * DAY, vectors=profiles.vectors
    )
    torch.testing.assert_close(found[1], ranking_features(earlier, EVERYTHING, table)[1])
    assert not torch.equal(found[0], found[1])


def test_events_at_or_after_the_moment_are_ignored(table: ItemTable) -> None:
    later = history(*EVENTS, (9, PURCHASE, 0.0), (3, PURCHASE, -5.0))
    wanted = features_of(history(*EVENTS), EVERYTHING, table)
    assert torch.equal(features_of(later, EVERYTHING, table), wanted)


# What changes while a user is away; all else counts from the user's latest event.
OF_THE_MOMENT = {"own_recency", "own_due", "age", "days_away"}


@pytest.mark.parametrize("years", [1, 40])
def test_a_history_that_ended_long_ago_keeps_its_features(table: ItemTable, years: int) -> None:
    found = features_of(history(*EVENTS), EVERYTHING, table, NOW + years * 365 * DAY)
    wanted = features_of(history(*EVENTS), EVERYTHING, table)
    assert found.isfinite().all()
    for name, now, then in zip(FEATURES, found.unbind(dim=1), wanted.unbind(dim=1), strict=True):
        if name in OF_THE_MOMENT:
            assert not torch.equal(now, then), name
        else:
            torch.testing.assert_close(now, then, msg=name)


def test_time_counts_in_units_of_the_shop(table: ItemTable) -> None:
    """A shop where all takes twice as long has the same features."""
    slow_tempo = table.tempo._replace(pause_days=12.0, window_days=40.0)
    known = table.created_us != torch.iinfo(torch.int64).min
    created_us = torch.where(known, NOW - 2 * (NOW - table.created_us), table.created_us)
    slow = replace(table, tempo=slow_tempo, created_us=created_us)
    slowly = history(*((row, kind, 2 * age) for row, kind, age in EVENTS))
    found, wanted = features_of(slowly, EVERYTHING, slow), features_of(USERS[0], EVERYTHING, table)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_newcomer_has_finite_features_and_none_of_a_history(table: ItemTable) -> None:
    found = features_of(EMPTY_HISTORY, EVERYTHING, table)
    assert found.isfinite().all()
    of_users = [
        name
        for name in FEATURES
        if name.startswith(("own", "ease", "item_knn", "next", "ials", "category", "history"))
        or name.endswith("similarity")
    ]
    for name in of_users:
        assert not found[:, FEATURES.index(name)].any(), name


def test_no_candidates_are_no_features(table: ItemTable) -> None:
    for nothing in (torch.empty(0, dtype=torch.int64), torch.empty(4, 0, dtype=torch.int64)):
        found = ranking_features(profiles_of(USERS, table), nothing, table)
        assert found.shape == (4, 0, len(FEATURES))


def test_an_item_without_events_has_the_values_that_training_hides_with(table: ItemTable) -> None:
    for values in (table.users, table.buyers, table.season_users, table.factors):
        values[8] = 0
    for neighbours in (table.ease, table.cosine, table.following):
        neighbours.weights[neighbours.rows == 8] = 0
    found = features_of(history(*EVENTS), torch.tensor([8]), table)[0]
    for name, value in COLD_VALUES.items():
        assert found[FEATURES.index(name)] == value, name
    others = features_of(history(*EVENTS), EVERYTHING[:8], table)
    for name, value in COLD_VALUES.items():
        assert (others[:, FEATURES.index(name)] != value).any(), name


def test_only_the_last_events_of_a_very_long_history_are_read(table: ItemTable) -> None:
    long = [(n % 5, PURCHASE, 900.0 - n / 2) for n in range(HISTORY_EVENTS)]
    short = features_of(history(*long), EVERYTHING, table)
    longer = history((9, PURCHASE, 950.0), (8, VIEW, 940.0), *long)
    assert torch.equal(features_of(longer, EVERYTHING, table), short)


def test_a_candidate_is_compared_with_the_last_events_alone(table: ItemTable) -> None:
    others = [(n % 4, VIEW, 100.0 - n) for n in range(SIMILAR_EVENTS)]
    column = FEATURES.index("max_similarity")
    found = features_of(history((9, VIEW, 101.0), *others), torch.tensor([9]), table)
    assert found[0, column] < 0.999
    found = features_of(history((9, VIEW, 101.0), *others[1:]), torch.tensor([9]), table)
    assert found[0, column] == pytest.approx(1.0)


def visit_share(table: ItemTable, *events: Event) -> list[float]:
    found = features_of(history(*events), torch.tensor([1, 4]), table)
    return [float(one) for one in found[:, FEATURES.index("own_visit_share")]]


def test_a_view_before_the_purchase_does_not_hide_it_from_the_visit_share(
    table: ItemTable,
) -> None:
    assert visit_share(table, (1, VIEW, 5.01), (1, PURCHASE, 5.0)) == [1.0, 0.0]
    twice = [(1, PURCHASE, 5.02), (4, VIEW, 5.01), (1, PURCHASE, 5.0), (4, PURCHASE, 2.0)]
    assert visit_share(table, *twice) == [0.5, 0.5]
    assert visit_share(table, (1, VIEW, 5.0), (4, VIEW, 2.0)) == [0.0, 0.0]


def many_profiles(table: ItemTable, n_users: int, n_events: int) -> UserProfiles:
    generator = np.random.default_rng(0)
    histories = [
        history(
            *zip(
                generator.integers(0, len(table), n_events).tolist(),
                generator.integers(0, 2, n_events).tolist(),
                sorted(generator.uniform(0, 300, n_events).tolist(), reverse=True),
                strict=True,
            )
        )
        for _ in range(n_users)
    ]
    return profiles_of(histories, table)


def test_features_of_many_users_take_microseconds_a_pair_and_raise_no_warning() -> None:
    table = item_table(1_200, 32, n_factors=16)
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            start = time.perf_counter()
            profiles = many_profiles(table, 16, 60)
            found = ranking_features(profiles, torch.arange(len(table)), table)
            seconds.append(time.perf_counter() - start)
    assert found.isfinite().all()
    assert min(seconds) / (16 * len(table)) < 20e-6
