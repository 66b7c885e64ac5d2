import numpy as np

from benchmarks.offers import (
    DAYS,
    DIM,
    START_US,
    build_catalogue,
    generate_events,
    generate_shop,
)
from recsys.data.interactions import MICROSECONDS_PER_DAY


def test_the_generated_log_has_topics_companions_and_no_item_before_it_appears() -> None:
    generator = np.random.default_rng(0)
    shop = generate_shop(2_000, generator)
    events = generate_events(shop, 500, generator)
    days = (events.timestamps_us - START_US) / MICROSECONDS_PER_DAY
    assert (np.diff(events.timestamps_us) >= 0).all()
    assert days.min() >= 0
    assert days.max() < DAYS + 1
    # Demand is that of the month, so an item may be bought up to a month before it appears.
    assert (shop.appears[events.item_rows] < days + 31).all()
    topics_of_user = [len(np.unique(shop.topics[one.item_rows])) for one in events.histories()]
    assert np.median(topics_of_user) < 9
    pairs = {
        (int(left), int(right)) for left in range(2_000) for right in shop.companions[left].tolist()
    }
    found = [
        (left, right) in pairs
        for one in events.histories()
        for left, right in zip(one.item_rows.tolist(), one.item_rows[1:].tolist(), strict=False)
    ]
    assert np.mean(found) > 0.1


def test_items_of_a_topic_are_closer_than_others() -> None:
    generator = np.random.default_rng(0)
    shop = generate_shop(1_000, generator)
    items, embeddings = build_catalogue(shop, generator)
    assert (len(items), embeddings.shape) == (1_000, (1_000, DIM))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    same = shop.topics[:, None] == shop.topics
    cosines = embeddings @ embeddings.T
    assert cosines[same].mean() > cosines[~same].mean() + 0.3
