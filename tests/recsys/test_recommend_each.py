"""``recommend_each`` answers as ``recommend`` does, whoever is asked together."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from recsys.answers import Answer
from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.errors import InvalidArgumentError, UnknownItemError
from recsys.ranking.requests import Request
from recsys.recommender import Recommender
from recsys.rules import Pin, Rules, Selection

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


@pytest.fixture(scope="module", params=[1_000, 30], ids=["all items", "what sources offer"])
def recommender(request: pytest.FixtureRequest, bundle: Bundle) -> Recommender:
    offers = dict.fromkeys(("taste", "together", "popular", "new"), 5)
    return Recommender(bundle, rank_all_up_to=request.param, offers=offers)


def draw_requests(bundle: Bundle, n: int) -> list[Request]:
    """Return requests of random users that differ in everything that a caller may ask for."""
    generator = np.random.default_rng(0)
    ids = bundle.items["item_id"].to_list()
    soon = timedelta(days=30)
    rules = [
        *(None, None, Rules(), Rules(max_per_category=2, category_level=1)),
        Rules(diversity=0.3, pin=[Pin(ids[3], 2, since=NOW - soon, until=NOW)]),
        Rules(block=[Selection(item_ids=(ids[5], ids[6]), until=NOW)], explore=0.3, seed=4),
    ]
    filters = [Filters(), Filters(), Filters(price_max=40), Filters(available_only=False)]
    return [
        Request(
            user=str(generator.choice([*bundle.interactions.user_ids, "nobody"])),
            k=int(generator.choice([1, 10, 10, 50])),
            now=NOW - timedelta(days=float(generator.choice([0, 0, 20, 400]))),
            filters=filters[generator.integers(len(filters))],
            exclude=generator.choice(ids, 5).tolist() if generator.random() < 0.3 else (),
            exclude_seen=bool(generator.random() < 0.3),
            explain=bool(generator.random() < 0.3),
            rules=rules[generator.integers(len(rules))],
        )
        for _ in range(n)
    ]


def check_same(together: Sequence[Answer], alone: Sequence[Answer]) -> None:
    for one, other in zip(together, alone, strict=True):
        assert [found.item_id for found in one] == [found.item_id for found in other]
        for found, wanted in zip(one, other, strict=True):
            assert found.score == pytest.approx(wanted.score, abs=1e-5)
            assert found.propensity == pytest.approx(wanted.propensity)
            assert (found.source, found.reason) == (wanted.source, wanted.reason)
            names = [name for name, _ in found.features]
            assert names == [name for name, _ in wanted.features]


def test_sixty_four_requests_get_together_what_each_gets_alone(
    recommender: Recommender, bundle: Bundle
) -> None:
    requests = draw_requests(bundle, 64)
    alone = [recommender.recommend_each([one])[0] for one in requests]
    check_same(recommender.recommend_each(requests), alone)
    check_same(recommender.recommend_each(requests[::-1])[::-1], alone)
    assert any(answer[0].reason for answer in alone if len(answer)), "some were explained"


def test_a_request_is_a_call_of_recommend(recommender: Recommender, bundle: Bundle) -> None:
    user, *_ = bundle.interactions.user_ids
    (found,) = recommender.recommend_each([Request(user, 3, NOW, exclude_seen=True)])
    assert found == recommender.recommend(user, 3, now=NOW, exclude_seen=True)


def test_requests_share_a_pass_unless_their_settings_differ(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    best = recommender.ranker.best
    monkeypatch.setattr(
        recommender.ranker,
        "best",
        lambda histories, *args, **kwargs: (
            passes.append(len(histories)) or best(histories, *args, **kwargs)
        ),
    )
    cheap, later = Filters(price_max=40), NOW + timedelta(days=1)
    recommender.recommend_each(
        [
            Request("a", now=NOW),
            Request("b", now=later, filters=cheap, explain=True),
            Request("c", k=3, now=NOW),
            Request("d", now=NOW, exclude=("x",)),
            Request("e", now=NOW, exclude_seen=True),
        ]
    )
    assert passes == [3, 1, 1]


def test_nothing_asked_is_nothing_answered(recommender: Recommender) -> None:
    assert recommender.recommend_each([]) == []


def test_a_bad_request_is_named(recommender: Recommender) -> None:
    with pytest.raises(InvalidArgumentError, match="k must be a whole number"):
        recommender.recommend_each([Request("a"), Request("b", k=0)])
    with pytest.raises(UnknownItemError, match="no such item"):
        recommender.recommend_each([Request("a", rules=Rules(pin=[Pin("no such item", 1)]))])
