from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.config import EvaluationConfig
from recsys.data.synthetic import Shop
from recsys.data.timestamps import from_us
from recsys.errors import MissingPartError
from recsys.evaluation.others import bundle_system
from recsys.evaluation.run_report import evaluate, report_run
from recsys.evaluation.systems import (
    OURS,
    classify_photos,
    identify_photos,
    rank_systems,
    recommender_scorers,
)
from recsys.identifier import ProductIdentifier
from recsys.pipeline import Run
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.recommender import Recommender
from recsys.rules import Pin, Rules, Selection


@pytest.fixture(scope="module")
def tables(tiny_run: Run) -> dict:
    bundle = Bundle(tiny_run.bundle)
    others = [
        bundle_system("ablation", name, Bundle(path), bundle)
        for name, path in tiny_run.ablations.items()
    ]
    return {one.scope: one for one in rank_systems(bundle, others).tables}


def test_every_scope_has_ours_the_ablations_and_the_baselines(tables: dict) -> None:
    assert set(tables) == {"all", "new", "cold"}
    for table in tables.values():
        roles = [row.role for row in table.systems]
        assert roles.count("ours") == 1
        assert roles.count("ablation") == 2
        assert roles.count("baseline") >= 5
        assert table.systems[0].name == OURS


def test_the_scorer_is_the_recommender_asked_at_the_split(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    recommender = Recommender(bundle, as_of=bundle.split_us)
    scores = recommender_scorers(bundle).scorer(np.array([4, 2]))
    assert scores.shape == (2, len(bundle.items))
    user, split = bundle.interactions.user_ids[2], from_us(bundle.split_us)
    assert np.allclose(scores[1], recommender.scores([user], now=split)[0], atol=1e-5)


def test_the_score_at_the_split_knows_nothing_of_what_came_later(tiny_bundle: Path) -> None:
    bundle, shortened = Bundle(tiny_bundle), Bundle(tiny_bundle)
    shortened.interactions = bundle.interactions.before(bundle.split_us)
    rows = np.arange(5)
    scores, same = (recommender_scorers(one).scorer(rows) for one in (bundle, shortened))
    assert np.array_equal(scores, same)


def with_rankers(path: Path, ranker: str, discovery: str | None) -> Bundle:
    bundle = Bundle(path)
    simple = None if discovery is None else SimpleRanker(discovery)
    bundle.held_out = UserRanker(bundle.held_out.encoder, SimpleRanker(ranker), simple)
    return bundle


def test_items_new_to_the_user_are_ranked_by_the_ranker_of_that_scope(tiny_bundle: Path) -> None:
    def ndcg(bundle: Bundle) -> dict[str, float]:
        tables = rank_systems(bundle, scopes=("all", "new", "cold")).tables
        return {one.scope: one.systems[0].metrics["ndcg@10"].mean for one in tables}

    kept, swapped, alone = (
        ndcg(with_rankers(tiny_bundle, *names))
        for names in (("popularity", "content"), ("content", "popularity"), ("content", None))
    )
    assert kept["new"] == alone["new"] != swapped["new"]
    assert swapped["all"] == alone["all"] != kept["all"]
    assert swapped["cold"] == alone["cold"]


def test_a_bundle_with_one_ranker_is_scored_once(tiny_bundle: Path) -> None:
    assert recommender_scorers(with_rankers(tiny_bundle, "EASE", None)).discovery is None
    two = recommender_scorers(with_rankers(tiny_bundle, "EASE", "popularity"))
    assert two.discovery is not None
    rows = np.array([4, 2])
    popular = recommender_scorers(with_rankers(tiny_bundle, "popularity", None)).scorer(rows)
    discovered = two.discovery(rows)
    np.testing.assert_array_equal(discovered, popular)
    assert not np.array_equal(two.scorer(rows), popular)


def with_rules(path: Path, rules: Rules) -> Bundle:
    bundle = Bundle(path)
    bundle.rules = rules
    return bundle


def test_the_lists_that_are_scored_are_those_that_are_served(tiny_bundle: Path) -> None:
    names = Bundle(tiny_bundle).items["item_id"]
    rules = Rules(
        diversity=0.3,
        max_per_category=3,
        category_level=1,
        popularity_penalty=0.2,
        pin=[Pin(names[7], 2), Pin(names[9], 1, until=from_us(0))],
        block=[Selection(names[20:30].to_list())],
        explore=0.5,
    )
    bundle = with_rankers(tiny_bundle, "content", None)  # whose scores are hardly ever equal
    bundle.rules = rules
    ranked = rank_systems(bundle, scopes=("all",), ks=(5, 10))
    queries, answered = ranked.answers[0]
    ours = answered[0][1]
    recommender = Recommender(bundle, as_of=bundle.split_us)
    now = from_us(bundle.split_us)
    for place, user_row in enumerate(ours.user_rows[:10].tolist()):
        served = recommender.recommend(
            bundle.interactions.user_ids[user_row],
            now=now,
            exclude=names.filter(~pl.Series(queries.candidates)).to_list(),
            filters=Filters(available_only=False),
            rules=rules.without_exploration(),
        )
        shown = [names[row] for row in ours.ranked[place].tolist() if row >= 0]
        assert shown == [one.item_id for one in served]


def test_rules_show_in_the_figures_and_in_the_report(tiny_bundle: Path) -> None:
    config = EvaluationConfig(scopes=("all",), k=(5,))
    plain, diverse = (
        evaluate(with_rules(tiny_bundle, rules), config, title="x")
        for rules in (Rules(explore=0.5), Rules(diversity=0.9))
    )
    assert plain.rules == ""
    assert diverse.rules == "diversity 0.9"
    spread = [one.rankings[0].systems[0].shown.diversity[5].mean for one in (plain, diverse)]
    assert spread[1] > spread[0]
    again = evaluate(with_rules(tiny_bundle, Rules()), config, title="x")
    assert again.rankings[0].systems[0].metrics == plain.rankings[0].systems[0].metrics


def test_another_bundle_is_compared_with_its_own_rules(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    other = with_rules(tiny_bundle, Rules(max_per_category=1, category_level=1))
    system = bundle_system("bundle", "capped", other, bundle)
    assert system.make_list is not None
    rows = np.arange(len(bundle.items))[::-1]
    shown = system.make_list(0, rows, 10)
    paths = bundle.items["category"].gather(shown.tolist()).to_list()
    assert len({path[0] for path in paths}) == len(paths)
    assert bundle_system("bundle", "plain", Bundle(tiny_bundle), bundle).make_list is None


def test_training_photos_are_classified_and_identified_as_by_the_identifier(
    tiny_bundle: Path, tiny_shop: Shop
) -> None:
    photos = pl.read_parquet(tiny_shop.photos).filter(split="train")
    bundle = Bundle(tiny_bundle)
    levels = classify_photos(bundle, photos, tiny_shop.images)
    assert [row.target for row in levels] == ["category_1", "category_2", "category_3"]
    assert levels[0].accuracy.mean > 1 / levels[0].n_classes
    row = identify_photos(bundle, photos, tiny_shop.images)
    assert row.n_candidates == len(bundle.items)
    assert row.top1.mean <= row.top5.mean <= 1
    identifier = ProductIdentifier(Recommender(bundle))
    first = [
        identifier.identify((tiny_shop.images / image).read_bytes()).candidates[0].item_id
        for image in photos["image"]
    ]
    assert row.top1.mean == pytest.approx((photos["item_id"] == pl.Series(first)).mean())


def test_the_report_of_a_run_has_every_section(tiny_run: Run) -> None:
    report = report_run(tiny_run, EvaluationConfig(), title="Tiny")
    assert {table.scope for table in report.rankings} == {"all", "new", "cold"}
    assert report.classification
    assert report.retrieval
    assert [one.stage for one in report.timings][:3] == ["vision", "text", "heads"]
    assert report.bundle_version == tiny_run.bundle.name
    assert all(user.recommended for user in report.gallery)


def test_a_bundle_alone_is_ranked_without_photos(tiny_bundle: Path) -> None:
    report = evaluate(Bundle(tiny_bundle), EvaluationConfig(scopes=("all",)), title="x")
    assert [table.scope for table in report.rankings] == ["all"]
    assert report.classification == report.retrieval == ()


def test_a_bundle_without_ranking_cannot_be_ranked(tiny_run: Run) -> None:
    class Bare(Bundle):
        parts = frozenset()

    with pytest.raises(MissingPartError):
        rank_systems(Bare(tiny_run.bundle))


def test_a_shop_too_large_for_ease_is_ranked_without_it_and_the_reason_is_given(
    tiny_bundle: Path,
) -> None:
    ranked = rank_systems(Bundle(tiny_bundle), scopes=("all",), ease_max_items=5)
    assert not any(row.name.startswith("EASE") for row in ranked.tables[0].systems)
    assert ranked.left_out == ["the EASE baseline: more than 5 items have events"]


def test_a_small_shop_is_ranked_beside_ease(tiny_bundle: Path) -> None:
    report = evaluate(Bundle(tiny_bundle), EvaluationConfig(scopes=("all",)), title="x")
    assert any(row.name.startswith("EASE") for row in report.rankings[0].systems)
    assert not any("EASE" in reason for reason in report.left_out)


def test_of_too_many_users_some_are_asked_and_the_report_says_so(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle(tiny_bundle)
    whole = rank_systems(bundle, scopes=("all", "new"))
    n_users = whole.tables[0].n_users
    monkeypatch.setattr("recsys.evaluation.systems.MAX_SCORES", 10 * len(bundle.items) + 1)
    sampled = rank_systems(bundle, scopes=("all", "new"))
    assert sampled.tables[0].n_users == 10 < n_users
    assert sampled.left_out == [f"{n_users - 10} of {n_users} users: 10 were drawn at random"]
    for (queries, answered), (asked, of_sample) in zip(whole.answers, sampled.answers, strict=True):
        places = np.flatnonzero(np.isin(queries.user_rows, asked.user_rows))
        (_, one), (_, other) = answered[0], of_sample[0]
        np.testing.assert_array_equal(one.ranked[places], other.ranked)
