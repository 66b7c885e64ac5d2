import numpy as np

from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.training.pairs import PAIR_DAYS, item_pairs

DAY = MICROSECONDS_PER_DAY


def made(events: list[tuple[int, int, float]]) -> Interactions:
    """Return events of (user, item, day), oldest first."""
    users, items, days = zip(*sorted(events, key=lambda event: event[2]), strict=True)
    zeros = np.zeros(len(events), dtype=np.int64)
    return Interactions(
        user_ids=["a", "b", "c"],
        kind_names=["view"],
        n_items=9,
        user_rows=np.array(users),
        item_rows=np.array(items),
        kinds=zeros,
        timestamps_us=np.array([round(day * DAY) for day in days]),
        quantities=np.ones(len(events), dtype=np.float32),
    )


def test_pairs_are_what_one_user_met_one_after_the_other_within_a_week() -> None:
    events = [(0, 1, 0.0), (1, 2, 0.5), (0, 3, 1.0), (0, 3, 2.0), (0, 4, 2.0 + PAIR_DAYS)]
    events += [(0, 5, 9.5 + PAIR_DAYS), (1, 6, 7.6), (2, 1, 3.0), (2, 3, 4.0)]
    pairs = item_pairs(made(events), seed=0)
    assert sorted(map(tuple, pairs.tolist())) == [(1, 3), (1, 3), (3, 4)]
    assert pairs.dtype == np.int64


def test_the_seed_decides_the_order_alone() -> None:
    rng = np.random.default_rng(0)
    events = made([(int(rng.integers(3)), int(rng.integers(9)), n / 4) for n in range(80)])
    first, again, other = (item_pairs(events, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()
    assert sorted(first.tolist()) == sorted(other.tolist())


def test_without_events_there_are_no_pairs() -> None:
    assert item_pairs(None, seed=0).shape == (0, 2)
    assert item_pairs(made([(0, 1, 0.0)]), seed=0).shape == (0, 2)
