"""What is planted in the generated shop, checked against the hidden truth."""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pytest

from recsys.data.synthetic.behaviour import Events, simulate_events
from recsys.data.synthetic.products import Products, draw_products, typical_prices
from recsys.data.synthetic.seasons import (
    arrival_shares,
    draw_arrival_months,
    leaf_season,
    month_starts,
)
from recsys.data.synthetic.shoppers import LOOK_WEIGHTS, WORD_WEIGHTS, Shoppers, draw_shoppers
from recsys.data.synthetic.vocabulary import COLOURS, LEAVES, MATERIALS, THEMES

MONTHS = 12
K = 20


class Planted(NamedTuple):
    products: Products
    shoppers: Shoppers
    events: Events
    is_test: np.ndarray


@pytest.fixture(scope="module")
def planted() -> Planted:
    streams = np.random.SeedSequence(5).spawn(4)
    rngs = [np.random.default_rng(stream) for stream in streams]
    products = draw_products(400, rng=rngs[0])
    shoppers = draw_shoppers(500, months=MONTHS, rng=rngs[1])
    starts = month_starts(datetime(2026, 1, 1, tzinfo=UTC), MONTHS)
    arrivals = draw_arrival_months(400, months=MONTHS, rng=rngs[2])
    events = simulate_events(
        products, shoppers, arrival_months=arrivals, month_starts=starts, rng=rngs[3]
    )
    is_test = events.timestamps_us >= int(starts[-2].timestamp()) * 1_000_000
    return Planted(products, shoppers, events, is_test)


def _recall(scores: np.ndarray, planted: Planted) -> float:
    """Return the share of carted and bought pairs of the test month among each user's best K."""
    events = planted.events
    strong = planted.is_test & (events.kinds > 0)
    users, items = events.user_rows[strong], events.item_rows[strong]
    better = (scores[users] > scores[users, items][:, None]).sum(axis=1)
    return float((better < K).mean())


def _liking(planted: Planted, facts: dict[str, float]) -> np.ndarray:
    liking = planted.shoppers.types[:, planted.products.leaf].copy()
    for fact in facts:
        liking += planted.shoppers.tastes[fact][:, getattr(planted.products, fact)]
    return liking


def test_planted_taste_ranks_far_better_than_popularity(planted: Planted) -> None:
    n_items = len(planted.products)
    seen = planted.events.item_rows[~planted.is_test]
    popularity = np.bincount(seen, minlength=n_items) + np.linspace(0.0, 0.5, n_items)
    by_popularity = _recall(np.tile(popularity, (len(planted.shoppers), 1)), planted)
    assert _recall(_liking(planted, LOOK_WEIGHTS | WORD_WEIGHTS), planted) > 3 * by_popularity


def test_neither_look_nor_words_alone_rank_as_well_as_both(planted: Planted) -> None:
    both = _recall(_liking(planted, LOOK_WEIGHTS | WORD_WEIGHTS), planted)
    look, words = (
        _recall(_liking(planted, facts), planted) for facts in (LOOK_WEIGHTS, WORD_WEIGHTS)
    )
    types = _recall(_liking(planted, {}), planted)
    assert both > 1.2 * max(look, words)
    assert min(look, words) > 1.2 * types


def test_shoppers_like_few_values_and_dislike_others_by_the_stated_weight() -> None:
    shoppers = draw_shoppers(4000, months=2, rng=np.random.default_rng(0))
    taste = np.sort(shoppers.tastes["colour"], axis=1) / LOOK_WEIGHTS["colour"]
    assert taste[:, -2:].mean() == pytest.approx(1.0, abs=0.03)  # two liked of ten
    assert taste[:, :3].mean() == pytest.approx(-1.0, abs=0.03)  # three disliked


def test_utility_is_the_sum_of_tastes_less_the_price_gap(planted: Planted) -> None:
    products, shoppers = planted.products, planted.shoppers
    user, item = 17, 230
    expected = sum(
        taste[user, getattr(products, fact)[item]] for fact, taste in shoppers.tastes.items()
    )
    usual = typical_prices(products.leaf)[item]
    gap = abs(np.log(products.price[item] / usual) - shoppers.budget[user])
    expected -= shoppers.thrift[user] * gap
    assert shoppers.utility(products)[user, item] == pytest.approx(expected, abs=1e-5)


def test_the_look_of_a_product_is_independent_of_its_words() -> None:
    products = draw_products(20_000, rng=np.random.default_rng(1))
    together = np.histogram2d(products.colour, products.theme, (len(COLOURS), len(THEMES)))[0]
    expected = together.sum(axis=1, keepdims=True) * together.sum(axis=0) / together.sum()
    chi2 = ((together - expected) ** 2 / expected).sum()
    assert chi2 < 180  # 126 degrees of freedom: 180 is passed once in a thousand


def test_a_product_is_made_of_what_its_type_allows() -> None:
    products = draw_products(2_000, rng=np.random.default_rng(2))
    leaves = list(LEAVES.values())
    names = list(MATERIALS)
    assert all(
        names[material] in leaves[leaf].materials
        for leaf, material in zip(products.leaf, products.material, strict=True)
    )
    assert np.ptp(np.bincount(products.leaf)) <= 1


def test_nobody_acts_before_joining(planted: Planted) -> None:
    starts = month_starts(datetime(2026, 1, 1, tzinfo=UTC), MONTHS)
    starts_us = np.array([int(start.timestamp()) * 1_000_000 for start in starts])
    months = np.searchsorted(starts_us, planted.events.timestamps_us, side="right") - 1
    assert (months >= planted.shoppers.joined[planted.events.user_rows]).all()


def test_events_come_oldest_first(planted: Planted) -> None:
    assert (np.diff(planted.events.timestamps_us) >= 0).all()


def test_month_starts_cross_the_year() -> None:
    starts = month_starts(datetime(2026, 2, 1, tzinfo=UTC), 3)
    assert [(start.year, start.month) for start in starts] == [
        (2025, 11),
        (2025, 12),
        (2026, 1),
        (2026, 2),
    ]


def test_the_last_month_has_a_collection_and_so_has_each_sixth_before() -> None:
    shares = arrival_shares(24)
    assert shares.sum() == pytest.approx(1.0)
    assert np.flatnonzero(shares > 0.05).tolist() == [0, 5, 11, 17, 23]
    arrivals = draw_arrival_months(1200, months=24, rng=np.random.default_rng(0))
    counts = np.bincount(arrivals, minlength=24)
    assert np.abs(counts - 1200 * shares).max() <= 1.0


def test_a_season_peaks_in_its_month_and_is_the_same_before_and_after() -> None:
    row = list(LEAVES).index("mug")  # peaks in December, so its season crosses the year
    season = [leaf_season(month)[row] for month in range(1, 13)]
    assert season[11] == 1.0
    assert season[0] == pytest.approx(season[10])
    assert max(season[2:9]) < 0.2
    assert leaf_season(12)[list(LEAVES).index("chair")] == 0.0
