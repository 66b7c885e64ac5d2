"""Live counts as part of the item table, and of rankings without a time."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch

from recsys.bundle import Bundle
from recsys.ranking.live_counts import LiveCount, with_counts
from recsys.recommender import Recommender
from tests.serving.conftest import PlantedShop, plant

NOW = datetime(2025, 6, 2, tzinfo=UTC)
COUNTS = {
    "green-lamp": LiveCount(users=40.0, users_long=50.0, buyers=3.0, buyers_long=4.0),
    "unheard of": LiveCount(users=9.0),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> PlantedShop:
    return plant(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def recommender(shop: PlantedShop) -> Recommender:
    return Recommender(Bundle(shop.path))


def ids(answer: Any) -> list[str]:
    return [one.item_id for one in answer]


def test_counts_are_added_to_the_users_and_buyers_of_each_period(recommender: Recommender) -> None:
    table, statistics = recommender.ranker._table, recommender.bundle.statistics
    row = recommender.catalogue.find("green-lamp")

    found = with_counts(table, recommender.catalogue, COUNTS)

    users, buyers = statistics.users.copy(), statistics.buyers.copy()
    users[row] += [50, 50, 50, 40, 40]  # ever, three windows, a window, half of one, a quarter
    buyers[row] += [4, 4, 4, 3, 3]
    np.testing.assert_allclose(found.users, np.log1p(users), rtol=1e-6)
    np.testing.assert_allclose(found.buyers, np.log1p(buyers), rtol=1e-6)
    assert torch.equal(found.popularity, found.users[:, -1] + 1e-3 * found.users[:, 0])
    assert torch.equal(found.season_users, table.season_users)
    assert with_counts(table, recommender.catalogue, {}) is table


def test_requests_without_a_time_follow_the_counts_and_replays_do_not(
    recommender: Recommender, shop: PlantedShop
) -> None:
    frozen = Recommender(Bundle(shop.path))
    recommender.ranker.count(COUNTS)

    assert ids(recommender.recommend("nobody"))[0] == "green-lamp"
    assert recommender.recommend_many(["nobody"])["item_id"][0] == "green-lamp"
    everything = recommender.catalogue.item_ids
    assert ids(recommender.rank("nobody", everything))[0] == "green-lamp"
    assert ids(frozen.recommend("nobody"))[0] != "green-lamp"
    assert recommender.recommend("nobody", now=NOW) == frozen.recommend("nobody", now=NOW)
    assert recommender.rank("nobody", everything, now=NOW) == frozen.rank(
        "nobody", everything, now=NOW
    )
    recommender.ranker.count({})
    assert ids(recommender.recommend("nobody")) == ids(frozen.recommend("nobody"))


def test_a_ranker_that_fails_leaves_popularity_with_the_counts(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(features: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no weights")

    monkeypatch.setattr(recommender.ranker._ranker, "ranker", fail)
    recommender.ranker.count(COUNTS)

    answer = recommender.recommend("nobody")
    assert answer.degraded == ("ranker_failed",)
    assert ids(answer)[0] == "green-lamp"


def test_counts_stay_when_the_catalogue_changes(recommender: Recommender) -> None:
    recommender.ranker.count(COUNTS)
    embeddings = np.asarray(recommender.bundle.item_embeddings[:1], np.float32)
    recommender.add_embedded(recommender.bundle.items[:1], embeddings)

    assert ids(recommender.recommend("nobody"))[0] == "green-lamp"
