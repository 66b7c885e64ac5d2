import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from recsys.catalogue.store import Catalogue
from recsys.data.interactions import Interactions
from recsys.errors import InvalidArgumentError
from recsys.models.ranker import Ranker as Network
from recsys.ranking.baselines import (
    EASE,
    IALS,
    Baseline,
    ItemKNN,
    Popularity,
    RecentPopularity,
)
from recsys.ranking.features import FEATURES, ranking_features
from recsys.ranking.item_table import ItemTable, build_item_table
from recsys.ranking.rankers import SIMPLE, Blend, SimpleRanker, blend
from recsys.ranking.statistics import COSINE_NEIGHBOURS, SHRINKAGE, build_statistics
from tests.recsys.ranking.planted_tables import NOW, interactions, profiles_of
from tests.recsys.ranking.test_item_table import items

N_USERS, N_ITEMS = 40, 20


@pytest.fixture(scope="module")
def log() -> Interactions:
    """Even users take even items and odd users odd ones; the last item has no event."""
    generator = np.random.default_rng(0)
    events = []
    for user in range(N_USERS):
        picks = generator.choice(9, size=5, replace=False, p=np.arange(9, 0, -1) / 45)
        events += [
            (user, int(2 * pick) + user % 2, days)
            for pick, days in zip(picks, generator.uniform(1, 60, 5).tolist(), strict=True)
        ]
    return interactions(*events, n_items=N_ITEMS)


@pytest.fixture(scope="module")
def table(log: Interactions) -> ItemTable:
    names = [f"item-{row:02}" for row in range(N_ITEMS)]
    catalogue = Catalogue(items(*names, price=1.0), np.eye(N_ITEMS, 24, dtype=np.float32))
    statistics = build_statistics(log, NOW, target_kinds=["purchase"])
    return build_item_table(catalogue, statistics, torch.tensor([True, False]))


@pytest.fixture(scope="module")
def features(log: Interactions, table: ItemTable) -> torch.Tensor:
    vectors = normalize(torch.randn(N_USERS, 24, generator=torch.Generator().manual_seed(0)))
    profiles = profiles_of(log.histories(), table, vectors=vectors)
    return ranking_features(profiles, torch.arange(N_ITEMS), table)


BY_DEFINITION: dict[str, Baseline] = {
    "popularity": Popularity(),
    "popularity, one window": RecentPopularity(30.0),
    "popularity, a quarter": RecentPopularity(7.5),
    "item-kNN": ItemKNN(COSINE_NEIGHBOURS, shrinkage=SHRINKAGE),
    "EASE": EASE(200.0),
}


@pytest.mark.parametrize("name", BY_DEFINITION)
def test_a_simple_ranker_is_the_baseline_of_its_name(
    name: str, log: Interactions, features: torch.Tensor
) -> None:
    wanted = BY_DEFINITION[name].fit(log, now_us=NOW).scores(np.arange(N_USERS))
    if name.startswith("popularity"):  # a feature is the logarithm of the number of users
        wanted = np.log1p(wanted)
    np.testing.assert_allclose(SimpleRanker(name)(features), wanted, atol=1e-5)


def test_ials_by_one_solve_for_the_user_ranks_as_the_baseline_does(
    log: Interactions, features: torch.Tensor
) -> None:
    """They differ by half a sweep: the baseline's users are solved before its items."""
    wanted = IALS().fit(log, now_us=NOW).scores(np.arange(N_USERS))
    found = SimpleRanker("iALS")(features).numpy()
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("name", ["item-kNN", "item-kNN, recent", "EASE", "EASE, recent", "iALS"])
def test_personal_rankers_prefer_the_items_of_the_users_own_cluster(
    name: str, features: torch.Tensor
) -> None:
    scores = SimpleRanker(name)(features)
    for user in range(N_USERS):
        own, other = scores[user, user % 2 : 18 : 2], scores[user, 1 - user % 2 : 18 : 2]
        assert own.mean() > other.mean() + 1e-3


@pytest.mark.parametrize("name", SIMPLE)
def test_equals_are_in_the_order_of_their_popularity(name: str, features: torch.Tensor) -> None:
    equal = features.clone()
    equal[..., FEATURES.index(SIMPLE[name])] = 0.5
    column = FEATURES.index("users_ever")
    if SIMPLE[name] == "users_ever":
        equal = features
    scores = SimpleRanker(name)(equal)
    assert torch.equal(scores[0].argsort(stable=True), equal[0, :, column].argsort(stable=True))


@pytest.mark.parametrize("name", SIMPLE)
def test_the_contribution_of_the_feature_is_the_score(name: str, features: torch.Tensor) -> None:
    ranker = SimpleRanker(name)
    found = ranker.contributions(features[0])
    assert found.shape == features[0].shape
    assert found.abs().sum(dim=0).nonzero().ravel().tolist() in (
        [],
        [FEATURES.index(SIMPLE[name])],
    )
    torch.testing.assert_close(found.sum(dim=1), ranker(features[0]), atol=1e-4, rtol=1e-4)


def test_scores_keep_every_shape() -> None:
    ranker = SimpleRanker("EASE")
    for shape in ((), (0,), (5,), (2, 3), (2, 0)):
        assert ranker(torch.zeros(*shape, len(FEATURES))).shape == shape
    assert ranker.to("cpu") is ranker


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match=r"name must be one of \['popularity', .*'eas'"):
        SimpleRanker("eas")


def test_a_blend_is_the_sum_of_scores_in_units_of_their_spread(features: torch.Tensor) -> None:
    rows = features.reshape(-1, len(FEATURES))
    rankers = [SimpleRanker("EASE"), SimpleRanker("iALS"), SimpleRanker("taste")]
    found = blend(rankers, rows)
    wanted = torch.zeros(len(rows), dtype=torch.float64)
    for ranker in rankers:
        scores = ranker(rows).double()
        wanted += scores / ((scores - scores.mean()) ** 2).mean().sqrt()
    torch.testing.assert_close(found(rows).double(), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found(features), found(rows).view(features.shape[:-1]))
    added = found.contributions(rows).sum(dim=1)
    torch.testing.assert_close(added, found(rows), rtol=1e-3, atol=1e-3)
    assert found.to("cpu") is found


def test_a_network_in_a_blend_is_in_evaluation_mode(features: torch.Tensor) -> None:
    network = Network(len(FEATURES), dropout=0.5).train()
    found = Blend([network, SimpleRanker("EASE")], [1.0, 1.0])
    assert torch.equal(found(features), found(features))


def test_a_ranker_that_scores_all_alike_has_no_say_in_a_blend(features: torch.Tensor) -> None:
    rows = features.reshape(-1, len(FEATURES)).clone()
    for name in ("season_users", "users_ever"):
        rows[:, FEATURES.index(name)] = 0.0
    rankers = [SimpleRanker("EASE"), SimpleRanker("popularity")]
    assert blend(rankers, rows).weights[1] == 0.0
    assert blend(rankers, rows[:1]).weights == (0.0, 0.0), "one candidate has no spread"
