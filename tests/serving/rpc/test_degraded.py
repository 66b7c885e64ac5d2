"""A bundle whose ranker fails answers by a simple recommender and says so, over real gRPC."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.bundle import Bundle, RankingPart
from recsys.bundle.contents import replace_ranking
from recsys.errors import InvalidArgumentError, RankingError, UnknownItemError
from recsys.models.ranker import Ranker
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.recommender import Recommender
from serving.client import AsyncClient
from serving.testing import running_service
from tests.recsys.ranking.test_failing_rankers import CHOICE, foreign_trees

NOW = datetime(2025, 6, 2, tzinfo=UTC)
FAILED = ("ranker_failed",)


def with_ranker(shop: Any, ranker: Any, root: Path) -> Path:
    """Seal the planted shop with another ranker, and return the bundle."""
    bundle = Bundle(shop.path)
    part = RankingPart(
        events=bundle.events,
        ranker=UserRanker(bundle.user_ranker.encoder, ranker),
        statistics=bundle.statistics,
        target_kinds=bundle.target_kinds,
        split_us=int(shop.end.timestamp()) * 1_000_000,
        choice=CHOICE,
    )
    return replace_ranking(bundle.path, part, root)


@pytest.fixture(params=["weights that are no numbers", "trees of other features"])
def broken(request: pytest.FixtureRequest, shop: Any, tmp_path: Path) -> Path:
    if request.param == "trees of other features":
        return with_ranker(shop, foreign_trees(), tmp_path)
    network = Ranker(len(FEATURES), hidden=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    return with_ranker(shop, network, tmp_path)


async def test_the_service_answers_degraded_counts_and_logs_once(
    broken: Path, shop: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    simple = Recommender(Bundle(with_ranker(shop, SimpleRanker("own purchases"), tmp_path / "2")))
    async with (
        running_service(broken) as service,
        AsyncClient(service.address) as client,
    ):
        found = await client.recommend("user-1", k=5, now=NOW, explain=True)
        ranked = await client.rank("user-1", ["red-mug", "blue-lamp"], now=NOW)
        other = await client.similar("red-mug", k=2)
        with pytest.raises(UnknownItemError):
            await client.rank("user-1", ["no such item"], now=NOW)
        with pytest.raises(InvalidArgumentError, match="k must be"):
            await client.recommend("user-1", k=0)
        counted = service.telemetry.value("recsys_degraded_total", reason=FAILED[0])

    assert (found.degraded, ranked.degraded, other.degraded) == (FAILED, FAILED, ())
    assert counted == 2
    wanted = simple.recommend("user-1", k=5, now=NOW)
    assert [one.item_id for one in found] == [one.item_id for one in wanted]
    assert [one.score for one in found] == pytest.approx([one.score for one in wanted])
    assert sum("simple recommenders answer" in one.getMessage() for one in caplog.records) == 1


def test_the_library_answers_degraded_and_evaluation_raises(broken: Path) -> None:
    recommender = Recommender(Bundle(broken))
    found = recommender.recommend("user-1", k=3, now=NOW)
    assert found.degraded == FAILED
    assert len(found) == 3
    assert recommender.rank("user-1", ["red-mug", "blue-lamp"], now=NOW).degraded == FAILED
    table = recommender.recommend_many(["user-1", "nobody"], k=3, now=NOW)
    assert table["degraded"].to_list() == [*FAILED] * 6
    assert table["item_id"].head(3).to_list() == [one.item_id for one in found]
    with pytest.raises(RankingError, match="serve an earlier bundle"):
        recommender.scores(["user-1"], now=NOW)


def test_a_damaged_model_file_is_refused_when_it_is_read(shop: Any, tmp_path: Path) -> None:
    bundle = with_ranker(shop, foreign_trees(), tmp_path)
    model = bundle / "ranker_trees.txt"
    model.write_text(model.read_text()[:-40])
    with pytest.raises(Exception, match=r"ranker_trees\.txt"):
        Recommender(Bundle(bundle))


@pytest.fixture(autouse=True)
def warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
