"""Measure what ranking only offers costs in catalogues of 41,000 and 100,000 items.

Run from the repository's root: ``python -m benchmarks.offers``; a number of items measures that
size alone. It prints and records the share of the held-out answers that the sources of candidates
offer at 500 items a source, and the share of NDCG@10 that is lost against a ranking of all items.

The log is generated. An item has a topic, a day on which it appears, an appeal whose share of its
topic halves every 150 days, four companions that are bought with it and two that are bought on the
visit after. A person has three topics. Item embeddings are the topic's direction with noise, and
the user encoder is as it begins, for towers are not what is measured here. The trees learn from the
window before the split, as in training.
"""

import resource
import sys
import time
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from benchmarks.record import record
from recsys.catalogue.store import Catalogue
from recsys.config import RankerConfig, TreesConfig
from recsys.data.arrays import Doubles, Floats, Ints
from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.data.timestamps import from_us
from recsys.evaluation.offers import measure_offers
from recsys.evaluation.queries import build_queries
from recsys.evaluation.results import OfferTable
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.candidates import SOURCES, CandidateSource
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.item_table import build_item_table
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics, build_statistics
from recsys.schema import ItemSchema
from recsys.training.cuts import on_offer
from recsys.training.ranking import Snapshot, answers_between, fit_trees, sample_examples

COMMAND = "python -m benchmarks.offers"
SIZES = (41_000, 100_000)
NUMBER = 500  # items of each source
N_USERS_MEASURED = 200
N_TREES = 100
EASE_MAX_ITEMS = 6_000  # half of what training solves, which takes an eighth of the time
DIM = 64
START_US = 15_000 * MICROSECONDS_PER_DAY
DAYS, WINDOW_DAYS, HALF_LIFE_DAYS = 720, 30, 150.0
ITEMS_OF_TOPIC, TOPICS_OF_USER = 200, 3
VISITS, MORE_ITEMS = 8, 5  # at most, of a person and beyond the first of a visit
COMPANIONS, FOLLOWERS = 4, 2
P_COMPANION, P_FOLLOWER, P_AGAIN, P_MORE = 0.45, 0.3, 0.15, 0.6


class Shop(NamedTuple):
    """Items of a generated shop.

    Args:
        topics: Topic of each item, ascending, int64 (N,).
        appears: Day on which each item appears (N,).
        appeal: Appeal of each item when new (N,).
        companions: Items that are bought with each item (N, COMPANIONS).
        followers: Items that are bought on the visit after (N, FOLLOWERS).
    """

    topics: Ints
    appears: Doubles
    appeal: Doubles
    companions: Ints
    followers: Ints


def generate_shop(n_items: int, generator: np.random.Generator) -> Shop:
    """Return a shop of some items."""
    topics = np.sort(generator.integers(0, n_items // ITEMS_OF_TOPIC, n_items))
    return Shop(
        topics=topics,
        appears=generator.uniform(-0.5 * DAYS, 0.98 * DAYS, n_items),
        appeal=generator.pareto(1.3, n_items) + 0.1,
        companions=generator.integers(0, n_items, (n_items, COMPANIONS)),
        followers=generator.integers(0, n_items, (n_items, FOLLOWERS)),
    )


def generate_events(shop: Shop, n_users: int, generator: np.random.Generator) -> Interactions:
    """Return the purchases of some people."""
    tastes = generator.integers(0, shop.topics[-1] + 1, (n_users, TOPICS_OF_USER))
    counts = generator.integers(2, VISITS + 1, n_users)
    days = np.sort(generator.uniform(0, DAYS, (n_users, VISITS)), axis=1)
    last = np.full(n_users, -1)
    rows = []
    for visit in range(VISITS):
        users = np.flatnonzero(counts > visit)
        day = days[users, visit]
        topic = tastes[users, generator.integers(0, TOPICS_OF_USER, len(users))]
        before = last[users]
        item = _draw(shop, topic, day, generator)
        follows = (before >= 0) & (generator.random(len(users)) < P_FOLLOWER)
        item = _instead(shop, item, shop.followers, before, day, follows, generator)
        again = (before >= 0) & (generator.random(len(users)) < P_AGAIN)
        item = np.where(again, before, item)
        for number in range(1 + MORE_ITEMS):
            rows.append((users, item, day + number / 1_440))
            last[users] = item
            stays = generator.random(len(users)) < P_MORE
            users, day, topic, item = users[stays], day[stays], topic[stays], item[stays]
            drawn = _draw(shop, topic, day, generator)
            goes_with = generator.random(len(users)) < P_COMPANION
            item = _instead(shop, drawn, shop.companions, item, day, goes_with, generator)
    users, items, moments = (np.concatenate(column) for column in zip(*rows, strict=True))
    times_us = START_US + (moments * MICROSECONDS_PER_DAY).astype(np.int64)
    order = np.argsort(times_us, kind="stable")
    return Interactions(
        user_ids=[f"u{number}" for number in range(n_users)],
        kind_names=["purchase"],
        n_items=len(shop.topics),
        user_rows=users[order],
        item_rows=items[order],
        kinds=np.zeros(len(order), dtype=np.int64),
        timestamps_us=times_us[order],
        quantities=np.ones(len(order), dtype=np.float32),
    )


def _draw(shop: Shop, topics: Ints, days: Doubles, generator: np.random.Generator) -> Ints:
    """Return an item of each topic (n,) by what is in demand in the month of the day (n,)."""
    chosen = np.empty(len(topics), dtype=np.int64)
    months = (days // WINDOW_DAYS).astype(np.int64)
    for month in np.unique(months).tolist():
        age = (month + 1) * WINDOW_DAYS - shop.appears
        demand = np.where(age > 0, shop.appeal * 0.5 ** (age / HALF_LIFE_DAYS), 0.0) + 1e-12
        ends = np.cumsum(demand)
        some = np.flatnonzero(months == month)
        first = np.searchsorted(shop.topics, topics[some])
        beyond = np.searchsorted(shop.topics, topics[some], side="right")
        low, high = ends[first] - demand[first], ends[beyond - 1]
        points = low + generator.random(len(some)) * (high - low)
        chosen[some] = np.clip(np.searchsorted(ends, points), first, beyond - 1)
    return chosen


def _instead(
    shop: Shop,
    drawn: Ints,
    partners: Ints,
    of: Ints,
    days: Doubles,
    wanted: NDArray[np.bool_],
    generator: np.random.Generator,
) -> Ints:
    """Return a partner of ``of`` where one is wanted and has appeared, else the drawn item (n,)."""
    partner = partners[of, generator.integers(0, partners.shape[1], len(of))]
    return np.where(wanted & (shop.appears[partner] < days), partner, drawn)


def build_catalogue(shop: Shop, generator: np.random.Generator) -> tuple[pl.DataFrame, Floats]:
    """Return the items table and the item embeddings (N, DIM)."""
    n_items = len(shop.topics)
    created_us = START_US + (shop.appears * MICROSECONDS_PER_DAY).astype(np.int64)
    table = pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(n_items)],
            "category": [[f"topic {topic}"] for topic in shop.topics.tolist()],
            "attributes": [[]] * n_items,
            "price": np.exp(generator.normal(2.5, 0.8, n_items)).round(2),
            "created_at": [from_us(time_us) for time_us in created_us.tolist()],
        }
    ).with_columns(available=True)
    items = ItemSchema.cast(pl.concat([ItemSchema.create_empty(), table], how="diagonal_relaxed"))
    centres = generator.normal(size=(int(shop.topics[-1]) + 1, DIM))
    embeddings = centres[shop.topics] + generator.normal(size=(n_items, DIM))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return items, embeddings.astype(np.float32)


def _statistics(events: Interactions, at_us: int) -> Statistics:
    start = time.perf_counter()
    found = build_statistics(
        events,
        at_us,
        target_kinds=["purchase"],
        window_days=WINDOW_DAYS,
        ease_max_items=EASE_MAX_ITEMS,
    )
    print(f"  statistics: {time.perf_counter() - start:.0f} s", flush=True)
    return found


def measure(n_items: int, seed: int = 0) -> OfferTable:
    """Return what the sources offer in a generated shop, and what a ranking of it all finds."""
    generator = np.random.default_rng(seed)
    shop = generate_shop(n_items, generator)
    events = generate_events(shop, n_items // 3, generator)
    items, embeddings = build_catalogue(shop, generator)
    catalogue = Catalogue(items, embeddings)
    encoder = UserEncoder(DIM, n_kinds=1, spec=UserEncoderSpec())
    encoder.taste.fit_scale(catalogue.embeddings)
    split_us = START_US + (DAYS - WINDOW_DAYS) * MICROSECONDS_PER_DAY
    cut_us = split_us - WINDOW_DAYS * MICROSECONDS_PER_DAY
    print(f"{n_items:,} items, {len(events):,} events of {events.n_users:,} people", flush=True)
    snapshot = Snapshot(
        table=build_item_table(catalogue, _statistics(events, cut_us), torch.tensor([True])),
        histories=events.histories(),
        moments_us=np.broadcast_to(np.asarray(cut_us), (events.n_users,)),
        answers=answers_between(events, cut_us, split_us),
        candidates=np.flatnonzero(on_offer(items, events, cut_us)),
    )
    config = RankerConfig(trees=TreesConfig(trees=N_TREES))
    examples = sample_examples(
        snapshot, encoder, n_queries=1_000, n_candidates=config.n_candidates, seed=seed
    )
    trees = fit_trees([examples], config, seed=seed)
    del snapshot
    before = events.before(split_us)
    ranker = CatalogueRanker(
        catalogue,
        UserRanker(encoder, trees),
        CandidateSource(offers=dict.fromkeys(SOURCES, NUMBER)),
        _statistics(events, split_us),
        {"purchase": True},
    )
    queries = build_queries(
        before,
        events.since(split_us),
        now_us=split_us,
        scope="all",
        candidates=on_offer(items, events, split_us),
    )
    histories = before.histories()
    return measure_offers(
        ranker, queries, histories, max_users=N_USERS_MEASURED, max_scores=10**9, seed=seed
    )


def main() -> None:
    """Measure, print and record."""
    torch.set_num_threads(1)
    for n_items in [int(one) for one in sys.argv[1:]] or SIZES:
        start = time.perf_counter()
        table = measure(n_items)
        for row in table.sources:
            print(f"  {row.source}: recall {row.recall.mean:.3f}")
        print(f"  all together: recall {table.union.mean:.3f} with {table.n_offered:,.0f} offers")
        print(
            f"  NDCG@10 {table.ndcg.mean:.4f} of the offers, {table.ndcg_of_all.mean:.4f} of all "
            f"items: {100 * table.lost_share:.1f} % lost ({table.n_users} users)"
        )
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"  {time.perf_counter() - start:.0f} s, peak memory {peak_gb:.2f} GB", flush=True)
        name = "offers" if n_items == SIZES[-1] else f"offers.items_{n_items // 1_000}k"
        command = f"{COMMAND} {n_items}"
        record("offers", f"{name}.recall", round(table.union.mean, 4), "share", command)
        record("offers", f"{name}.ndcg_lost", round(table.lost_share, 4), "share", command)


if __name__ == "__main__":
    main()
