"""Every baseline under one contract on planted data, and each against its definition."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from scipy import sparse

from recsys.data.interactions import MICROSECONDS_PER_DAY, Interactions
from recsys.errors import InvalidArgumentError, LeakageError, UnknownUserError
from recsys.ranking.baselines import (
    EASE,
    IALS,
    Baseline,
    ContentKNN,
    ItemKNN,
    OwnPurchases,
    Popularity,
    RecentPopularity,
    cosine_neighbours,
    ease_weights,
)
from recsys.ranking.baselines.factors import (
    CONFIDENCE,
    RIDGE,
    Factors,
    _batches,
    fold_in,
    fold_in_parts,
)

DAY = MICROSECONDS_PER_DAY
NOW_US = 1_000 * DAY

PERSONAL: dict[str, Callable[[], Baseline]] = {
    "item-kNN": lambda: ItemKNN(5),
    "EASE": lambda: EASE(5.0),
    "iALS": lambda: IALS(2, ridge=1.0),
}
BASELINES: dict[str, Callable[[], Baseline]] = {
    "popularity": Popularity,
    "recent popularity": RecentPopularity,
    "own purchases": OwnPurchases,
    **PERSONAL,
    # The vectors of even items and of odd ones are at right angles; item 20 has none.
    "content-kNN": lambda: ContentKNN(np.eye(2)[np.arange(21) % 2] * (np.arange(21) < 20)[:, None]),
}


def interactions(
    user_rows: ArrayLike, item_rows: ArrayLike, days_ago: ArrayLike, n_users: int, n_items: int
) -> Interactions:
    order = np.argsort(-np.asarray(days_ago), kind="stable")
    times = NOW_US - (np.asarray(days_ago)[order] * DAY).astype(np.int64)
    return Interactions(
        user_ids=[f"u{row}" for row in range(n_users)],
        kind_names=["purchase"],
        n_items=n_items,
        user_rows=np.asarray(user_rows, dtype=np.int64)[order],
        item_rows=np.asarray(item_rows, dtype=np.int64)[order],
        kinds=np.zeros(len(order), dtype=np.int64),
        timestamps_us=times,
        quantities=np.ones(len(order), dtype=np.float32),
    )


@pytest.fixture(scope="module")
def clusters() -> Interactions:
    """Even users take even items and odd users odd ones; user 40 and item 20 have no events."""
    generator = np.random.default_rng(0)
    user_rows = np.repeat(np.arange(40), 6)
    picks = np.concatenate([generator.choice(10, size=6, replace=False) for _ in range(40)])
    item_rows = 2 * picks + user_rows % 2
    days_ago = generator.uniform(1, 29, size=len(user_rows))
    return interactions(user_rows, item_rows, days_ago, n_users=41, n_items=21)


@pytest.fixture(scope="module")
def random_events() -> Interactions:
    """Items of very different popularity, so that no two similarities are equal by chance."""
    generator = np.random.default_rng(1)
    user_rows = generator.integers(0, 90, size=600)
    item_rows = (15 * generator.beta(0.8, 1.6, size=600)).astype(np.int64)
    days_ago = generator.uniform(1, 200, size=600)
    return interactions(user_rows, item_rows, days_ago, n_users=90, n_items=15)


@pytest.mark.parametrize("name", BASELINES)
def test_scores_are_finite_float32_for_every_user_and_item(
    name: str, clusters: Interactions
) -> None:
    model = BASELINES[name]().fit(clusters, now_us=NOW_US)
    scores = model.scores(np.array([40, 0, 7]))
    assert scores.shape == (3, 21)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert model.name


@pytest.mark.parametrize("name", BASELINES)
def test_user_scores_the_same_in_every_batch_and_fit(name: str, clusters: Interactions) -> None:
    model = BASELINES[name]().fit(clusters, now_us=NOW_US)
    batch = model.scores(np.array([5, 6, 5]))
    np.testing.assert_array_equal(batch[0], batch[2])
    np.testing.assert_allclose(batch[1], model.scores(np.array([6]))[0], atol=1e-6)
    again = BASELINES[name]().fit(clusters, now_us=NOW_US)
    np.testing.assert_array_equal(batch, again.scores(np.array([5, 6, 5])))


@pytest.mark.parametrize("name", BASELINES)
def test_items_with_events_outrank_the_one_without_in_total(
    name: str, clusters: Interactions
) -> None:
    total = BASELINES[name]().fit(clusters, now_us=NOW_US).scores(np.arange(40)).sum(axis=0)
    assert total[20] == 0
    assert (total[:20] > 0).all()


@pytest.mark.parametrize("name", [*PERSONAL, "content-kNN"])
def test_unseen_items_of_the_own_cluster_come_before_those_of_the_other(
    name: str, clusters: Interactions
) -> None:
    scores = BASELINES[name]().fit(clusters, now_us=NOW_US).scores(np.arange(40))
    met = clusters.matrix()[:40].toarray() > 0
    own = (np.arange(21) % 2 == np.arange(40)[:, None] % 2) & (np.arange(21) < 20)
    worst_own = np.where(own & ~met, scores, np.inf).min(axis=1)
    best_other = np.where(own, -np.inf, scores).max(axis=1)
    assert (worst_own > best_other).all()


@pytest.mark.parametrize("name", BASELINES)
def test_scoring_before_fitting_is_an_error(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"must be fitted before it scores; call fit"):
        BASELINES[name]().scores(np.array([0]))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("row", [-1, 41])
def test_unknown_user_row_is_an_error(name: str, row: int, clusters: Interactions) -> None:
    model = BASELINES[name]().fit(clusters, now_us=NOW_US)
    with pytest.raises(UnknownUserError, match=rf"between 0 and 40 .* got \[{row}\]"):
        model.scores(np.array([0, row]))


@pytest.mark.parametrize("name", BASELINES)
def test_event_at_the_moment_of_the_request_is_a_leak(name: str, clusters: Interactions) -> None:
    latest = int(clusters.timestamps_us.max())
    with pytest.raises(LeakageError, match="got 1 events at or after it"):
        BASELINES[name]().fit(clusters, now_us=latest)


@pytest.mark.parametrize("name", BASELINES)
def test_no_events_at_all_give_equal_scores(name: str, clusters: Interactions) -> None:
    nothing = clusters.where(np.zeros(len(clusters), dtype=bool))
    scores = BASELINES[name]().fit(nothing, now_us=NOW_US).scores(np.array([0, 1]))
    np.testing.assert_array_equal(scores, np.zeros((2, 21)))


def test_popularity_counts_users_and_not_events() -> None:
    events = interactions([0, 0, 0, 1, 2], [1, 1, 1, 2, 2], [9, 8, 7, 6, 5], 3, 4)
    scores = Popularity().fit(events, now_us=NOW_US).scores(np.array([0]))
    np.testing.assert_array_equal(scores, [[0, 1, 2, 0]])


def test_recent_popularity_forgets_what_is_older_than_its_window() -> None:
    events = interactions([0, 1, 2, 0], [0, 0, 1, 1], [31, 30, 29, 1], 3, 2)
    scores = RecentPopularity(days=30).fit(events, now_us=NOW_US).scores(np.array([2]))
    np.testing.assert_array_equal(scores, [[1, 2]])


def test_item_knn_equals_its_definition_as_loops(random_events: Interactions) -> None:
    users, items = 90, 15
    has = random_events.matrix().toarray() > 0
    expected = np.zeros((users, items))
    for candidate in range(items):
        similarity = {
            other: (has[:, candidate] & has[:, other]).sum()
            / (np.sqrt(has[:, candidate].sum() * has[:, other].sum()) + 2.0)
            for other in range(items)
            if other != candidate
        }
        nearest = sorted(similarity, key=lambda item: similarity[item], reverse=True)[:4]
        for user in range(users):
            expected[user, candidate] = sum(similarity[j] for j in nearest if has[user, j])
    model = ItemKNN(4, shrinkage=2.0).fit(random_events, now_us=NOW_US)
    np.testing.assert_allclose(model.scores(np.arange(users)), expected, atol=1e-6)


def test_content_knn_is_the_sum_of_cosines_to_the_distinct_items_of_the_user() -> None:
    events = interactions([0, 0, 0, 1], [0, 0, 1, 2], [4, 3, 2, 1], 2, 4)
    vectors = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]])
    scores = ContentKNN(vectors).fit(events, now_us=NOW_US).scores(np.array([0, 1]))
    half = np.sqrt(0.5)
    expected = [[1.0, 1.0, 2 * half, -1.0], [half, half, 1.0, -half]]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_content_knn_without_one_vector_per_item_is_an_error(clusters: Interactions) -> None:
    with pytest.raises(InvalidArgumentError, match="one row for each of 21 items, got 20"):
        ContentKNN(np.ones((20, 2))).fit(clusters, now_us=NOW_US)


def test_neighbours_do_not_depend_on_how_many_items_are_compared_at_once(
    random_events: Interactions,
) -> None:
    matrix = random_events.matrix()
    whole = cosine_neighbours(matrix, n_neighbours=4).toarray()
    pieces = cosine_neighbours(matrix, n_neighbours=4, items_at_once=4).toarray()
    np.testing.assert_array_equal(pieces, whole)
    assert (np.diag(whole) == 0).all()
    assert ((whole > 0).sum(axis=1) <= 4).all()


def test_ease_weights_solve_the_constrained_least_squares_problem(
    random_events: Interactions,
) -> None:
    matrix = random_events.matrix()
    dense = matrix.toarray().astype(np.float64)
    weights = ease_weights(matrix, ridge=3.0)
    # Column j regresses item j on all the others: a ridge regression without itself.
    for j in range(15):
        others = np.arange(15) != j
        left = dense[:, others].T @ dense[:, others] + 3.0 * np.eye(14)
        np.testing.assert_allclose(
            weights[others, j], np.linalg.solve(left, dense[:, others].T @ dense[:, j]), atol=1e-5
        )
        assert weights[j, j] == 0


def test_ease_scores_are_history_times_weights(random_events: Interactions) -> None:
    matrix = random_events.matrix()
    scores = EASE(3.0).fit(random_events, now_us=NOW_US).scores(np.arange(90))
    np.testing.assert_allclose(scores, matrix @ ease_weights(matrix, ridge=3.0), atol=1e-5)


def test_ease_refuses_more_items_than_its_maximum(random_events: Interactions) -> None:
    with pytest.raises(ValueError, match=r"at most max_items = 14 items with events, got 15"):
        EASE(max_items=14).fit(random_events, now_us=NOW_US)


def ials_loss(
    matrix: sparse.csr_matrix, factors: Factors, confidence: float, ridge: float
) -> float:
    has = matrix.toarray() > 0
    errors = np.where(has, confidence, 1.0) * (has - factors.users @ factors.items.T) ** 2
    size = (factors.users**2).sum() + (factors.items**2).sum()
    return float(errors.sum() + ridge * size)


def test_ials_loss_falls_with_every_sweep(random_events: Interactions) -> None:
    losses = []
    for n_sweeps in range(1, 8):
        model = IALS(3, confidence=6.0, ridge=0.5, n_sweeps=n_sweeps)
        factors = model.fit(random_events, now_us=NOW_US).factors
        losses.append(ials_loss(random_events.matrix(), factors, 6.0, 0.5))
    assert (np.diff(losses) < 0).all()


def test_ials_items_solve_the_normal_equations_given_the_users(random_events: Interactions) -> None:
    users, items = IALS(3, confidence=6.0, ridge=0.5).fit(random_events, now_us=NOW_US).factors
    has = random_events.matrix().toarray() > 0
    for item in range(15):
        weight = np.diag(np.where(has[:, item], 6.0, 1.0))
        left = users.T @ weight @ users + 0.5 * np.eye(3)
        expected = np.linalg.solve(left, users.T @ weight @ has[:, item])
        np.testing.assert_allclose(items[item], expected, atol=1e-4)


def test_ials_does_not_depend_on_how_rows_are_batched(clusters: Interactions) -> None:
    whole = IALS(4, n_sweeps=3).fit(clusters, now_us=NOW_US)
    pieces = IALS(4, n_sweeps=3, cells_at_once=60).fit(clusters, now_us=NOW_US)
    users = np.arange(40)
    np.testing.assert_allclose(pieces.scores(users), whole.scores(users), atol=1e-4)


def test_ials_depends_on_its_seed_and_reports_every_sweep(random_events: Interactions) -> None:
    sweeps = []
    first = IALS(3, n_sweeps=2, on_sweep=lambda *done: sweeps.append(done))
    second = IALS(3, n_sweeps=2, seed=1)
    assert not np.array_equal(
        first.fit(random_events, now_us=NOW_US).factors.users,
        second.fit(random_events, now_us=NOW_US).factors.users,
    )
    assert sweeps == [(1, 2), (2, 2)]


def test_own_purchases_are_a_count_times_a_decay_since_the_last() -> None:
    # User 0 took item 0 twice, last 60 days ago, and item 1 once, 120 days ago.
    events = interactions([0, 0, 0, 1], [0, 0, 1, 2], [200, 60, 120, 10], 2, 4)
    scores = OwnPurchases(half_life_days=60).fit(events, now_us=NOW_US).scores(np.array([0, 1]))
    own = np.array([[2 * 0.5, 0.25, 0, 0], [0, 0, 2 ** (-1 / 6), 0]])
    np.testing.assert_allclose(scores, own, atol=1.1e-3)


def test_own_purchases_of_one_basket_and_the_rest_are_in_order_of_popularity() -> None:
    # One basket of items 0 and 1, of which 1 is popular; 3 is more popular than 2.
    events = interactions([0, 0, 1, 2, 1, 2, 1], [0, 1, 1, 1, 3, 3, 2], [5, 5, 9, 9, 9, 9, 9], 3, 5)
    scores = OwnPurchases().fit(events, now_us=NOW_US).scores(np.array([0]))
    assert np.argsort(-scores[0]).tolist() == [1, 0, 3, 2, 4]


def test_repeated_events_count_once_in_item_weights(random_events: Interactions) -> None:
    doubled = random_events.where(np.repeat(True, len(random_events)))
    twice = interactions(
        np.tile(doubled.user_rows, 2),
        np.tile(doubled.item_rows, 2),
        np.tile((NOW_US - doubled.timestamps_us) / DAY, 2),
        90,
        15,
    )
    for make in PERSONAL.values():
        once = make().fit(random_events, now_us=NOW_US).scores(np.arange(90))
        np.testing.assert_array_equal(once, make().fit(twice, now_us=NOW_US).scores(np.arange(90)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecentPopularity(days=0), "days must be above 0, got 0"),
        (lambda: ItemKNN(0), "n_neighbours must be at least 1, got 0"),
        (lambda: ItemKNN(shrinkage=-1), "shrinkage must be at least 0, got -1"),
        (lambda: EASE(0), "ridge must be above 0, got 0"),
        (lambda: IALS(0), "n_factors and n_sweeps must be at least 1, got 0 and 15"),
        (lambda: IALS(confidence=0.5), "confidence must be at least 1 .* got 0.5"),
        (lambda: OwnPurchases(0), "half_life_days must be above 0, got 0"),
    ],
)
def test_number_out_of_range_is_an_error(make: Callable[[], Baseline], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_matrix_without_any_pair_has_no_neighbours() -> None:
    empty = sparse.csr_matrix((3, 4), dtype=np.float32)
    assert cosine_neighbours(empty, n_neighbours=2).nnz == 0


@pytest.mark.parametrize(("confidence", "ridge"), [(CONFIDENCE, RIDGE), (3.0, 0.5)])
def test_folding_in_is_the_dense_solution_for_each_user(confidence: float, ridge: float) -> None:
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(9, 4))
    has = generator.random((6, 9)) < 0.4
    has[[2, 5]] = False  # newcomers, one of them last
    users, rows = (torch.from_numpy(one) for one in has.nonzero())
    found = fold_in(
        torch.from_numpy(factors), users, rows, len(has), confidence=confidence, ridge=ridge
    )
    weights = np.where(has, confidence, 1.0)
    for user in range(len(has)):
        normal = factors.T @ (weights[user, :, None] * factors) + ridge * np.eye(4)
        wanted = np.linalg.solve(normal, factors.T @ (weights[user] * has[user]))
        np.testing.assert_allclose(found[user], wanted, rtol=1e-8, atol=1e-12)
    assert not found[[2, 5]].any()


def test_folding_in_fitted_users_is_the_next_half_sweep(clusters: Interactions) -> None:
    items = IALS(2, n_sweeps=3).fit(clusters, now_us=NOW_US).factors.items
    users, rows = (torch.from_numpy(one.astype(np.int64)) for one in clusters.matrix().nonzero())
    found = fold_in(torch.from_numpy(items), users, rows, clusters.n_users)
    model = IALS(2)
    wanted = torch.zeros(clusters.n_users, 2)
    model._solve(wanted, torch.from_numpy(items), _batches(clusters.matrix(), 50_000))
    torch.testing.assert_close(found, wanted)


def test_a_user_is_folded_in_alike_alone_and_among_others() -> None:
    factors = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    together = fold_in(factors, torch.tensor([0, 0, 2]), torch.tensor([4, 1, 6]), 3)
    alone = fold_in(factors, torch.tensor([0]), torch.tensor([6]), 1)
    torch.testing.assert_close(together[2], alone[0])


def test_folding_in_nobody_is_empty() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert fold_in(torch.ones(7, 3), nothing, nothing, 0).shape == (0, 3)
    assert fold_in(torch.ones(7, 3), nothing, nothing, 2).tolist() == [[0.0] * 3] * 2


def test_the_parts_of_own_items_add_up_to_the_scores_of_the_folded_in_user() -> None:
    factors = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    rows, candidates = torch.tensor([1, 4, 6]), torch.tensor([8, 0, 4, 2])
    user = fold_in(factors, torch.zeros_like(rows), rows, 1, confidence=5.0, ridge=2.0)[0]
    parts = fold_in_parts(factors, rows, candidates, confidence=5.0, ridge=2.0)
    torch.testing.assert_close(parts.sum(dim=0), factors[candidates] @ user)
    assert parts.shape == (3, 4)
