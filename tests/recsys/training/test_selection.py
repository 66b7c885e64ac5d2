import json
from dataclasses import replace
from typing import Literal, NamedTuple, Self

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config import RankerConfig
from recsys.data.arrays import Ints
from recsys.data.interactions import EMPTY_HISTORY, History
from recsys.evaluation.metrics import find_hits, ndcg_at_k
from recsys.ranking.rankers import SIMPLE, Blend, Ranker, SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.training.ranking import Snapshot
from recsys.training.selection import (
    SCOPES,
    Choice,
    Scope,
    Trial,
    _simplest,
    choose_ranker,
    measure_rankers,
    ndcg,
    read_choice,
)
from tests.recsys.training.snapshots import (
    CUT,
    items_of,
    purchases,
    snapshot,
    snapshot_of,
    untrained_encoder,
)

AUTO = RankerConfig()


class Planted(NamedTuple):
    """A ranker that puts the same items first for everybody."""

    rows: tuple[int, ...]

    def __call__(self, features: Tensor) -> Tensor:
        """Return scores (...) for features (..., F), which reveal their items."""
        order = {row: float(len(self.rows) - place) for place, row in enumerate(self.rows)}
        scores = [order.get(row, 0.0) for row in items_of(features).ravel().tolist()]
        return torch.tensor(scores).view(features.shape[:-1])

    def contributions(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features)

    def to(self, device: str) -> Self:
        return self


def choose(
    shot: Snapshot,
    config: RankerConfig = AUTO,
    *,
    network: Ranker | None = None,
    trees: Ranker | None = None,
    seed: int = 0,
) -> Choice:
    trained: dict[str, Ranker] = {
        "network": network or Planted(()),
        "trees": trees or Planted(()),
    }
    results = measure_rankers(shot, untrained_encoder(), trained, seed=seed)
    return choose_ranker(results, config)


def mixed_shop() -> Snapshot:
    """Return 20 users who buy their own four items again, and item 7 for the first time.

    Among the items that a user does not have, nothing but a planted ranker finds it.
    """
    owned = [np.arange(20, 24) + 4 * user % 80 for user in range(20)]
    return snapshot_of(
        [purchases(rows.tolist(), [5, 4, 3, 2]) for rows in owned],
        [np.array([7, *rows]) for rows in owned],
    )


def trials_of(choice: Choice, scope: Scope) -> dict[str, float]:
    return {one.name: one.ndcg for one in choice.trials if one.scope == scope}


def results(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(column) for name, column in values.items()}


def test_the_simplest_wins_whose_loss_is_within_the_noise_and_within_two_percent() -> None:
    best = [0.5, 0.9]  # mean 0.7, of which 2 % are 0.014
    # Losses of -0.2 and 0.22: mean 0.01, deviation 0.21, error 0.15.
    assert _simplest(results(simple=[0.7, 0.68], better=best), None) == "simple"
    # Losses of -0.2 and 0.4: mean 0.1 is within the error of 0.21, but not within 2 %.
    assert _simplest(results(simple=[0.7, 0.5], better=best), None) == "better"
    # Losses of 0.01 each are within 2 %, and there is no noise.
    assert _simplest(results(simple=[0.49, 0.89], better=best), None) == "better"
    # Of three that are as good, the first; one that is clearly worse is passed over.
    near = results(worse=[0.0, 0.1], near=[0.7, 0.69], also=[0.6, 0.79], better=best)
    assert _simplest(near, None) == "near"


def test_the_error_is_that_of_the_difference_not_of_the_results() -> None:
    """Users differ a lot, but each is served better by the second."""
    easy_and_hard = np.tile([0.1, 0.9], 50)
    found = {"simple": easy_and_hard, "better": easy_and_hard + 0.005}
    assert _simplest(found, None) == "better"


def test_a_better_but_more_complicated_ranker_needs_more_than_one_user() -> None:
    assert _simplest(results(simple=[0.4], better=[0.4]), None) == "simple"
    assert _simplest(results(simple=[0.4], better=[0.5]), None) == "better"


def test_a_clearly_better_ranker_wins_and_each_scope_has_its_own() -> None:
    choice = choose(mixed_shop(), trees=Planted((7,)))
    assert (choice.all, choice.new) == ("own purchases", "trees")
    assert trials_of(choice, "new")["trees"] == pytest.approx(1.0)
    assert trials_of(choice, "new")["own purchases"] < 0.2
    # Four of five answers: a gain of 2.562 of 2.949, by 1 / log2(1 + rank); or the fifth, first.
    assert trials_of(choice, "all")["own purchases"] == pytest.approx(2.562 / 2.949, abs=0.01)
    assert 1 / 2.949 <= trials_of(choice, "all")["trees"] < 0.5


def test_of_two_that_rank_alike_the_simpler_is_chosen() -> None:
    shot = mixed_shop()
    assert choose(shot, network=Planted((7,)), trees=Planted((7,))).new == "network"
    popular = SimpleRanker("popularity")
    same = choose(snapshot(), network=popular, trees=popular)
    assert trials_of(same, "all")["trees"] == trials_of(same, "all")["popularity"]
    assert {same.all, same.new} <= set(SIMPLE)


@pytest.mark.parametrize("kind", ["trees", "network"])
def test_a_kind_that_the_configuration_names_ranks_in_both_scopes(
    kind: Literal["trees", "network"],
) -> None:
    choice = choose(mixed_shop(), RankerConfig(kind=kind))
    assert (choice.all, choice.new) == (kind, kind)
    # What it was chosen against is on record all the same.
    assert set(trials_of(choice, "all")) == {*SIMPLE, "network", "trees"}


def test_trials_are_of_every_ranker_best_first_in_each_scope() -> None:
    choice = choose(mixed_shop(), trees=Planted((7,)))
    for scope in SCOPES:
        found = trials_of(choice, scope)
        assert set(found) == {*SIMPLE, "network", "trees"}
        assert list(found.values()) == sorted(found.values(), reverse=True)


def by_evaluation(shot: Snapshot, name: str, scope: Scope) -> float:
    """Return the mean NDCG@10 of the service's rankings, one user at a time."""
    service = UserRanker(untrained_encoder(), SimpleRanker(name))
    rows = shot.candidates
    found = []
    for user, history in enumerate(shot.histories):
        past = history.item_rows[history.timestamps_us < shot.moments_us[user]]
        out = past if scope == "new" else np.empty(0, dtype=np.int64)
        wanted = np.setdiff1d(np.intersect1d(shot.answers[user], rows), out)
        if not len(past) or not len(wanted):
            continue
        profiles = service.profiles([history], shot.moments_us[[user]], shot.table)
        scores = service.score(profiles, torch.from_numpy(rows), shot.table).scores[0].numpy()
        ranked = rows[np.argsort(-scores, kind="stable")]
        ranked = ranked[~np.isin(ranked, out)][:10]
        found.append(ndcg_at_k(find_hits(ranked[None], [wanted]), 10)[0])
    return float(np.mean(found))


def asked_shop() -> Snapshot:
    """Return the planted snapshot, a user without history, and one with an event after the cut."""
    shot = snapshot()
    histories: list[History] = [*shot.histories, EMPTY_HISTORY, purchases([5, 6], [4, -1])]
    more: list[Ints] = [np.array([3]), np.array([5, 6, 9])]
    return replace(
        shot,
        histories=histories,
        answers=[*shot.answers, *more],
        moments_us=np.full(len(histories), CUT),
    )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["popularity", "item-kNN", "own purchases", "taste"])
def test_results_are_those_of_evaluation(name: str, scope: Scope) -> None:
    shot = asked_shop()
    found = trials_of(choose(shot), scope)[name]
    assert found == pytest.approx(by_evaluation(shot, name, scope), rel=1e-6)


@pytest.mark.parametrize("n_items", [4, 10, 40])
def test_ndcg_is_that_of_the_metrics(n_items: int) -> None:
    rng = np.random.default_rng(n_items)
    k = min(10, n_items)
    relevant = rng.uniform(size=(60, n_items)) < rng.uniform(size=(60, 1))
    relevant[:, 0] |= ~relevant.any(axis=1)
    relevant[0] = True
    ranked = np.stack([rng.permutation(n_items)[:k] for _ in relevant])
    wanted = ndcg_at_k(find_hits(ranked, [np.flatnonzero(row) for row in relevant]), k)
    found = ndcg(torch.from_numpy(relevant), torch.from_numpy(ranked))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


def test_where_nobody_can_be_asked_the_network_ranks() -> None:
    """Nobody comes again, and nobody took anything that was on offer."""
    newcomers = snapshot_of([EMPTY_HISTORY] * 3, [np.array([4])] * 3)
    met = purchases([3], [1])
    idle = snapshot_of([met] * 2, [np.array([110]), np.empty(0, dtype=np.int64)])
    for shot in (newcomers, idle):
        assert choose(shot) == Choice("network", "network", ())
        forced = choose(shot, RankerConfig(kind="trees"))
        assert forced == Choice("trees", "trees", ())


def test_where_everybody_only_buys_again_only_the_whole_catalogue_is_compared() -> None:
    owned = [(20 + user, 21 + user) for user in range(0, 40, 2)]
    shot = snapshot_of(
        [purchases(list(rows), [3, 2]) for rows in owned], list(map(np.array, owned))
    )
    choice = choose(shot)
    assert (choice.all, choice.new) == ("own purchases", "network")
    assert {one.scope for one in choice.trials} == {"all"}


def test_users_are_asked_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    shot = asked_shop()
    together = choose(shot)
    monkeypatch.setattr("recsys.training.ranking.CELLS_AT_ONCE", 3 * len(shot.table))
    apart = choose(shot)
    assert (apart.all, apart.new) == (together.all, together.new)
    for scope in SCOPES:
        assert trials_of(apart, scope) == pytest.approx(trials_of(together, scope))


def test_answers_are_ranked_even_if_a_sample_leaves_their_items_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("recsys.training.selection.VALIDATION_ITEMS", 5)
    ranked: list[list[int]] = []

    class Watching(Planted):
        def __call__(self, features: Tensor) -> Tensor:
            ranked.append(items_of(features[0]).tolist())
            return super().__call__(features)

    shot = snapshot_of([purchases([9], [1])] * 3, [np.array([row]) for row in (31, 47, 110)])
    choice = choose(shot, trees=Watching((31, 47)))
    (rows,) = ranked
    assert rows == sorted(set(rows))
    assert {31, 47} <= set(rows) <= set(range(100))  # 110 is not on offer
    assert 5 <= len(rows) <= 7
    # One user's answer is first, the other's second.
    assert trials_of(choice, "all")["trees"] == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_a_sample_of_users_depends_on_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.training.selection.VALIDATION_USERS", 3)
    one, same, other = (choose(snapshot(), seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one.trials != other.trials


def test_a_choice_is_read_back_from_json() -> None:
    choice = choose(mixed_shop(), trees=Planted((7,)))
    assert read_choice(json.loads(json.dumps(choice.to_json()))) == choice
    empty = Choice("trees", "network", ())
    assert read_choice(json.loads(json.dumps(empty.to_json()))) == empty
    one = Choice("EASE", "trees", (Trial("new", "trees", 0.25),))
    assert one.to_json() == {
        "all": "EASE",
        "new": "trees",
        "trials": [{"scope": "new", "name": "trees", "ndcg": 0.25}],
    }


def test_simple_rankers_come_before_trained_ones_and_popularity_is_the_simplest() -> None:
    """Where nothing tells items apart, no ranker is better than another."""
    shot = snapshot()
    table = shot.table
    flat = {
        name: torch.zeros_like(getattr(table, name))
        for name in ("embeddings", "users", "buyers", "season_users", "factors")
    }
    silent = {
        name: getattr(table, name)._replace(weights=torch.zeros_like(getattr(table, name).weights))
        for name in ("ease", "cosine", "following")
    }
    met = [purchases([110 + user % 9], [2]) for user in range(8)]  # no longer on offer
    same = snapshot_of(met, [np.array([user]) for user in range(8)])
    same = replace(same, table=replace(same.table, **flat, **silent))
    choice = choose(same, trees=SimpleRanker("taste"))
    assert (choice.all, choice.new) == ("popularity", "popularity")


@pytest.mark.parametrize("first", [True, False])
def test_a_blend_is_measured_by_what_its_parts_scored(first: bool) -> None:
    """It makes no difference whether its parts were measured before."""
    parts = [SimpleRanker("EASE"), SimpleRanker("iALS")]
    known = {"one": parts[0], "other": parts[1]} if first else {}
    shot = asked_shop()
    found = measure_rankers(
        shot, untrained_encoder(), {**known, "blend": Blend(parts, [1, 2])}, seed=0
    )
    alone = measure_rankers(shot, untrained_encoder(), {"blend": Blend(parts, [1, 2])}, seed=0)
    for scope in SCOPES:
        np.testing.assert_array_equal(found[scope]["blend"], alone[scope]["blend"])
        assert not np.array_equal(found[scope]["blend"], found[scope]["EASE"], equal_nan=True)
