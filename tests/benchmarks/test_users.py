from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.users import (
    METRICS,
    VARIANTS,
    Shop,
    Variant,
    Window,
    content,
    measure,
    rank,
    smoothed,
    window_of,
    with_ids,
    with_prices,
)
from recsys.config import RankerConfig, TrainConfig, UserConfig
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.ranking.relations import NO_RELATIONS
from recsys.training.inputs import Behaviour
from recsys.training.known import count_events
from recsys.training.stages import Runtime, Workspace

DAY = MICROSECONDS_PER_DAY
N_ITEMS, N_USERS, DIM, CUT, SPLIT = 60, 40, 6, 50 * DAY, 60 * DAY


def behaviour() -> Behaviour:
    """Return people who each take items of one half of the catalogue."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 12)
    order = np.argsort(times := np.sort(rng.uniform(0, 70, len(users)) * DAY).astype(np.int64))
    users = rng.permutation(users)
    rows = 2 * rng.integers(0, N_ITEMS // 2, len(users)) + users % 2
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(N_ITEMS)],
            "title": "a title",
            "price": [None if n == 3 else float(n + 1) for n in range(N_ITEMS)],
            "category": [[]] * N_ITEMS,
            "attributes": [[]] * N_ITEMS,
            "available": True,
            "created_at": None,
        },
        schema_overrides={
            "category": pl.List(pl.String),
            "created_at": pl.Datetime("us", "UTC"),
        },
    )
    events = Interactions(
        user_ids=[f"u{n}" for n in range(N_USERS)],
        kind_names=["purchase"],
        n_items=N_ITEMS,
        user_rows=users,
        item_rows=rows,
        kinds=np.zeros(len(users), dtype=np.int64),
        timestamps_us=times[order],
        quantities=np.ones(len(users), dtype=np.float32),
    )
    return Behaviour(items, events, ("purchase",), (40 * DAY, CUT, SPLIT), NO_RELATIONS, "key")


@pytest.fixture(scope="module")
def shop() -> Shop:
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = TrainConfig(ranker=RankerConfig.model_validate({"trees": {"trees": 20}}))
    return Shop(behaviour(), vectors, config)


@pytest.fixture(scope="module")
def window(shop: Shop) -> Window:
    return window_of(shop)


def without_events(window: Window) -> np.ndarray:
    return np.asarray(window.known.past.matrix().getnnz(axis=0) == 0)


def test_the_window_ends_at_the_split_and_some_items_are_cold(window: Window) -> None:
    assert window.known.past.timestamps_us.max() < CUT
    events = behaviour().interactions
    later = set(events.item_rows[(events.timestamps_us >= CUT) & (events.timestamps_us < SPLIT)])
    assert {int(row) for one in window.queries["all"].relevant for row in one} <= later
    assert 0 < without_events(window).sum() < N_ITEMS / 3
    for one in window.queries["cold"].relevant:
        assert without_events(window)[one].all()


def test_smoothing_moves_items_towards_those_of_the_same_users(window: Window) -> None:
    before, after = content(window.known), smoothed(window.known)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, rtol=1e-5)
    halves = np.arange(N_ITEMS) % 2
    same = (halves[:, None] == halves) & ~np.eye(N_ITEMS, dtype=bool)
    known = ~without_events(window)
    same &= known[:, None] & known
    assert (after @ after.T)[same].mean() > (before @ before.T)[same].mean() + 0.05


def test_items_without_events_stay_as_they_are(window: Window) -> None:
    cold = without_events(window)
    np.testing.assert_allclose(smoothed(window.known)[cold], content(window.known)[cold], rtol=1e-6)
    ids = with_ids(window.known)
    assert np.array_equal(ids[:, :DIM], content(window.known))
    assert not ids[cold, DIM:].any()
    assert ids[~cold, DIM:].any(axis=1).all()


def test_prices_are_columns_and_unknown_ones_are_zero(window: Window) -> None:
    table = with_prices(window.known)
    assert np.array_equal(table[:, :DIM], content(window.known))
    assert not table[3, DIM:].any()
    known = np.delete(table[:, DIM], 3)
    assert (np.diff(known) > 0).all()


@pytest.mark.parametrize("name", ["regression_ids", "transformer_prices"])
def test_a_variant_is_measured_in_every_scope(name: str, window: Window, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    small = {**variant.changes, "epochs": 1, "width": 8, "heads": 2, "batch_size": 16}
    found = measure(window, Variant(variant.table, small), UserConfig(), tmp_path)
    assert found.results.keys() == {"all", "new", "cold"}
    for result in found.results.values():
        assert all(0 <= result.estimates[metric].mean <= 1 for metric in METRICS)
    assert found.seconds > 0


def test_trees_that_read_a_table_are_measured_on_the_last_window(
    shop: Shop, tmp_path: Path
) -> None:
    runtime = Runtime(Workspace(tmp_path / "stages", announce=print), "cpu")
    items = count_events(shop.behaviour, runtime)
    found = rank(shop, VARIANTS["regression_smoothed"], items, tmp_path / "encoder")
    taken = shop.behaviour.interactions.between(CUT, SPLIT)
    assert 0 < len(found["new"]) <= len(found["all"]) <= len(np.unique(taken.user_rows))
    # In a random order each place holds an answer as often as items are answers.
    by_chance = len(taken) / len(found["all"]) / N_ITEMS
    assert found["all"].mean() > 1.5 * by_chance
