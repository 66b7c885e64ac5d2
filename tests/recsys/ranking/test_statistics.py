import numpy as np
from scipy import sparse

from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.ranking.baselines import cosine_neighbours, ease_weights
from recsys.ranking.statistics import SHRINKAGE, build_statistics, entries_by_row

DAY = MICROSECONDS_PER_DAY
NOW = 1_000 * DAY


def interactions(*events: tuple[int, int, float], n_items: int = 6) -> Interactions:
    """Events as (user row, item row, days before NOW)."""
    ordered = sorted(events, key=lambda event: -event[2])
    users, items, ages = (np.array(column) for column in zip(*ordered, strict=True))
    return Interactions(
        user_ids=[f"u{n}" for n in range(int(users.max()) + 1)],
        kind_names=["purchase"],
        n_items=n_items,
        user_rows=users.astype(np.int64),
        item_rows=items.astype(np.int64),
        kinds=np.zeros(len(users), dtype=np.int64),
        timestamps_us=(NOW - ages * DAY).astype(np.int64),
        quantities=np.ones(len(users), dtype=np.float32),
    )


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


def test_counts_are_of_distinct_users_in_their_windows() -> None:
    statistics = build_statistics(interactions(*EVENTS), NOW)
    assert statistics.buyers.tolist() == [2, 2, 2, 1, 0, 0]
    assert statistics.recent_buyers.tolist() == [1, 2, 1, 0, 0, 0]
    # The season is the 30 days that followed one year ago: 365 to 335 days back.
    assert statistics.season_buyers.tolist() == [1, 0, 0, 1, 0, 0]


def test_nothing_at_or_after_the_moment_counts() -> None:
    late = [(0, 4, 0.0), (2, 5, -3.0)]
    with_late = build_statistics(interactions(*EVENTS, *late), NOW)
    without = build_statistics(interactions(*EVENTS), NOW)
    for name in ("buyers", "recent_buyers", "season_buyers", "neighbour_rows", "neighbour_weights"):
        assert np.array_equal(getattr(with_late, name), getattr(without, name)), name


def test_all_neighbours_together_are_the_weights_of_ease() -> None:
    events = interactions(*EVENTS)
    statistics = build_statistics(events, NOW, n_neighbours=5, ridge=2.0)
    weights = ease_weights(events.matrix()[:, :4], ridge=2.0)  # items 4 and 5 have no event
    rebuilt = np.zeros((4, 4), dtype=np.float32)
    for row in range(4):
        kept = statistics.neighbour_rows[row] >= 0
        rebuilt[row, statistics.neighbour_rows[row][kept]] = statistics.neighbour_weights[row][kept]
    assert np.allclose(rebuilt, weights, atol=1e-6)


def test_few_neighbours_are_the_strongest() -> None:
    events = interactions(*EVENTS)
    whole = build_statistics(events, NOW, n_neighbours=5, ridge=2.0)
    one = build_statistics(events, NOW, n_neighbours=1, ridge=2.0)
    for row in range(4):
        strongest = np.abs(whole.neighbour_weights[row]).argmax()
        assert one.neighbour_rows[row, 0] == whole.neighbour_rows[row, strongest]


def test_items_without_events_have_no_neighbours() -> None:
    statistics = build_statistics(interactions(*EVENTS), NOW)
    assert (statistics.neighbour_rows[4:] == -1).all()
    assert (statistics.neighbour_weights[4:] == 0).all()


def test_a_large_catalogue_uses_cosine_neighbours() -> None:
    statistics = build_statistics(interactions(*EVENTS), NOW, n_neighbours=3, ease_max_items=3)
    # Items 0 and 1 have the same two buyers; item 3 shares its only buyer with item 2 alone.
    assert statistics.neighbour_rows[0, 0] == 1
    assert statistics.neighbour_rows[3, 0] == 2


def test_cosine_neighbours_are_the_largest_of_each_dense_row_and_ties_go_by_row() -> None:
    generator = np.random.default_rng(0)
    pairs = zip(generator.integers(0, 25, 160), 2 * generator.integers(0, 20, 160), strict=True)
    events = interactions(*((user, item, 1.0) for user, item in pairs), n_items=40)
    known = np.unique(events.item_rows)  # every other item has no event at all
    for count in (1, 4, 39):
        found = build_statistics(events, NOW, n_neighbours=count, ease_max_items=3)
        cosines = cosine_neighbours(
            events.matrix()[:, known], n_neighbours=count, shrinkage=SHRINKAGE
        )
        for row, line in zip(known, cosines.toarray().T, strict=True):
            ranked = sorted(np.flatnonzero(line), key=lambda column: (-line[column], column))
            wanted = [(known[column], line[column]) for column in ranked[:count]]
            wanted += [(-1, 0.0)] * (count - len(wanted))
            pairs = zip(found.neighbour_rows[row], found.neighbour_weights[row], strict=True)
            assert list(pairs) == wanted


def test_a_sparse_matrix_yields_what_it_stores_and_a_dense_one_whole_rows() -> None:
    dense = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]], dtype=np.float32)
    stored = [(c.tolist(), v.tolist()) for c, v in entries_by_row(sparse.csr_matrix(dense))]
    whole = [(c.tolist(), v.tolist()) for c, v in entries_by_row(dense)]
    assert stored == [([1], [2.0]), ([], []), ([0, 2], [1.0, 3.0])]
    assert whole == [([0, 1, 2], row) for row in dense.tolist()]


def test_items_that_share_their_users_with_one_other_have_it_as_their_neighbour() -> None:
    events = interactions(*((item // 2, item, 1.0) for item in range(40)), n_items=40)
    found = build_statistics(events, NOW, ease_max_items=3)
    assert found.neighbour_rows[:, 0].tolist() == [item ^ 1 for item in range(40)]
    assert (found.neighbour_rows[:, 1:] == -1).all()
