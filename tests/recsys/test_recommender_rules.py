"""Rules of a bundle and of a request, over a whole catalogue."""

import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys.answers import Item, Result
from recsys.bundle import Bundle
from recsys.bundle.contents import DESCRIPTION
from recsys.bundle.manifest import MANIFEST
from recsys.bundle.sealing import seal
from recsys.catalogue.filters import Filters
from recsys.config import TrainConfig, write_rules
from recsys.data.dataset import Dataset
from recsys.errors import ConfigError, InvalidArgumentError, UnknownItemError
from recsys.pipeline import Run, train
from recsys.ranking.candidates import POPULAR, SOURCES
from recsys.recommender import Recommender
from recsys.rules import Pin, Rules, Selection, Shift
from recsys.training.inputs import read_shop

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


@pytest.fixture
def recommender(bundle: Bundle) -> Recommender:
    return Recommender(bundle)


@pytest.fixture
def user(bundle: Bundle) -> str:
    return bundle.interactions.user_ids[3]


def ids(results: Iterable[Result]) -> list[str]:
    return [result.item_id for result in results]


def test_rules_change_the_order_and_no_probability(recommender: Recommender, user: str) -> None:
    plain = recommender.recommend(user, 50, now=NOW)
    stated = {one.item_id: one.probability for one in plain}
    assert None not in stated.values()
    assert len(set(stated.values())) > 10
    assert list(stated.values()) == sorted(stated.values(), reverse=True)
    first, last = plain[0].item_id, plain[49].item_id
    rules = Rules(pin=[Pin(last, 1)], bury=[Shift([first], strength=9)], explore=0.3, seed=1)
    moved = recommender.recommend(user, 50, now=NOW, rules=rules)
    assert moved[0].item_id == last
    assert moved[0].probability == stated[last]
    for one in moved:
        assert stated.get(one.item_id, one.probability) == one.probability


def test_rules_of_a_request_replace_those_of_the_bundle(bundle: Bundle, user: str) -> None:
    plain = ids(Recommender(bundle).recommend(user, now=NOW))
    bundle.rules = Rules(block=[Selection([plain[0]])], pin=[Pin(plain[5], 1)])
    recommender = Recommender(bundle)

    assert ids(recommender.recommend(user, now=NOW))[:3] == [plain[5], *plain[1:3]]
    other = Rules(bury=[Shift([plain[1]])])
    replaced = ids(recommender.recommend(user, now=NOW, rules=other))
    assert replaced[:2] == [plain[0], plain[2]]
    assert ids(recommender.recommend(user, now=NOW, rules=Rules())) == plain


@pytest.mark.parametrize("rank_all_up_to", [20, 1_000])
def test_a_pinned_item_is_shown_although_no_source_offers_it(
    bundle: Bundle, user: str, rank_all_up_to: int
) -> None:
    offers = dict.fromkeys(SOURCES, 3) | {POPULAR: 0}  # which would fill up to k
    recommender = Recommender(bundle, rank_all_up_to=rank_all_up_to, offers=offers)
    offered = set(ids(recommender.recommend(user, 500, now=NOW)))
    rest = [one for one in recommender.catalogue.item_ids if one not in offered]
    pinned = (rest or recommender.catalogue.item_ids)[-1]
    rules = Rules(pin=[Pin(pinned, 2)])
    answer = recommender.recommend(user, 500, now=NOW, rules=rules)
    assert answer[1].item_id == pinned
    assert len(answer) == len(offered | {pinned})
    assert bool(rest) == (rank_all_up_to == 20)
    table = recommender.recommend_many(["nobody", user], 3, now=NOW, rules=rules)
    assert table.filter(rank=2)["item_id"].to_list() == [pinned] * 2


def test_a_pinned_item_that_may_not_be_shown_leaves_its_place_to_the_next(
    recommender: Recommender, user: str
) -> None:
    plain = recommender.recommend(user, now=NOW)
    seen = recommender.catalogue.item_ids[recommender.history(user).item_rows[-1]]
    dear = Item("dear", title="A vase", price=1e6, created_at=NOW - timedelta(days=9))
    recommender.add_items(
        [
            dear,
            Item("gone", title="A vase", available=False, created_at=NOW - timedelta(days=9)),
            Item("later", title="A vase", created_at=NOW + timedelta(days=1)),
        ]
    )

    def first(pinned: str, **wanted: object) -> str:
        rules = Rules(pin=[Pin(pinned, 1)])
        return recommender.recommend(user, now=NOW, rules=rules, **wanted)[0].item_id  # type: ignore[arg-type]

    assert first("dear") == "dear"
    assert first(seen) == seen
    for pinned, wanted in {
        "gone": {},
        "later": {},
        "dear": {"filters": Filters(price_max=1e5)},
        plain[2].item_id: {"exclude": [plain[2].item_id]},
        seen: {"exclude_seen": True},
    }.items():
        assert first(pinned, **wanted) not in (pinned, "dear")
    assert first("gone", filters=Filters(available_only=False)) == "gone"


def test_a_rule_of_the_bundle_for_an_item_that_was_deleted_does_nothing(
    bundle: Bundle, user: str
) -> None:
    plain = ids(Recommender(bundle).recommend(user, now=NOW))
    bundle.rules = Rules(pin=[Pin(plain[3], 1)], boost=[Shift([plain[4], "never there"])])
    recommender = Recommender(bundle)
    recommender.delete_items([plain[3]])
    assert plain[3] not in ids(recommender.recommend(user, now=NOW))
    with pytest.raises(UnknownItemError, match=plain[3]):
        recommender.recommend(user, rules=bundle.rules)


def test_caps_and_diversity_change_the_list_by_what_the_items_are(
    recommender: Recommender, user: str
) -> None:
    def categories(rules: Rules) -> list[str]:
        found = ids(recommender.recommend(user, 12, now=NOW, rules=rules))
        return [path[0] for path in recommender.catalogue.records(found)["category"]]

    def likeness(rules: Rules) -> float:
        found = ids(recommender.recommend(user, 12, now=NOW, rules=rules))
        vectors = recommender.catalogue.embeddings[recommender.catalogue.rows(found)]
        return float((vectors @ vectors.T).mean())

    capped = categories(Rules(max_per_category=2, category_level=1))
    assert max(capped.count(one) for one in capped) == 2
    assert max(categories(Rules()).count(one) for one in categories(Rules())) > 2
    means = [likeness(Rules(diversity=share)) for share in (0, 0.3, 0.9)]
    assert means[0] > means[1] > means[2]


def test_lists_of_many_users_explore_independently_and_say_how_probable_they_were(
    recommender: Recommender,
) -> None:
    users = recommender.bundle.interactions.user_ids[:20]
    rules = Rules(explore=0.4, seed=9)
    table = recommender.recommend_many(users, 5, now=NOW, rules=rules, block_size=3)
    assert table.equals(recommender.recommend_many(users, 5, now=NOW, rules=rules, block_size=3))
    assert set(table["propensity"].round(6)) == {0.6, round(0.4 / 95, 6)}
    explored = table.with_columns(pl.col("propensity") < 0.5).group_by("user_id").agg("propensity")
    assert len({tuple(one) for one in explored["propensity"].to_list()}) > 5
    alone = recommender.recommend(users[0], 5, now=NOW, rules=rules)
    assert ids(alone) == table.filter(user_id=users[0])["item_id"].to_list()
    assert [one.propensity for one in alone] == table["propensity"].head(5).to_list()


def resealed(path: Path, root: Path, **fields: object) -> Bundle:
    """The same bundle with other fields in its description; None removes one."""

    def fill(folder: Path) -> None:
        shutil.copytree(path, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        description = json.loads((folder / DESCRIPTION).read_text()) | fields
        kept = {name: value for name, value in description.items() if value is not None}
        (folder / DESCRIPTION).write_text(json.dumps(kept))

    return Bundle(seal(root, fill))


def test_rules_are_sealed_in_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    rules = Rules(diversity=0.2, pin=[Pin("item-00001", 1, since=NOW)])
    other = resealed(tiny_bundle, tmp_path, rules=write_rules(rules))
    assert other.rules == rules
    assert other.version != Bundle(tiny_bundle).version
    assert json.loads((tiny_bundle / DESCRIPTION).read_text())["rules"] == {}


def test_training_with_other_rules_seals_them_and_trains_nothing_again(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    rules = Rules(max_per_category=1, category_level=1)
    run = train(tiny_config.model_copy(update={"rules": rules}), tiny_run.bundle.parent)
    assert all(stage.skipped for stage in run.stages)
    for path in (run.bundle, *run.ablations.values()):
        assert Bundle(path).rules == rules
    recommender = Recommender.load(run.bundle)
    answer = recommender.recommend("nobody", 10, now=NOW)
    assert 0 < len(answer) < 10
    assert len(recommender.recommend("nobody", 10, now=NOW, rules=Rules())) == 10


def test_a_bundle_of_an_earlier_release_has_no_rules(tiny_bundle: Path, tmp_path: Path) -> None:
    assert resealed(tiny_bundle, tmp_path, rules=None).rules == Rules()


def test_training_refuses_rules_for_items_that_the_table_lacks(
    tiny_run: Run, tiny_config: TrainConfig
) -> None:
    dataset: Dataset = tiny_run.dataset
    known = dataset.items["item_id"][0]
    rules = Rules(pin=[Pin(known, 1)], block=[Selection(["vanished"])])
    with pytest.raises(ConfigError, match=r"rules must name items of the items table .*'vanished'"):
        read_shop(dataset, tiny_config.model_copy(update={"rules": rules}))


def test_anything_but_rules_is_refused(recommender: Recommender, user: str) -> None:
    with pytest.raises(InvalidArgumentError, match="rules must be Rules, such as Rules"):
        recommender.recommend(user, rules={"diversity": 0.3})  # type: ignore[arg-type]
