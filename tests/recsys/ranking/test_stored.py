"""Rankers and statistics, from the objects to the files of a bundle and back."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.bundle.contents import RankingPart
from recsys.config import FusionConfig, TreesConfig
from recsys.data.interactions import Interactions
from recsys.errors import BundleError, InvalidArgumentError
from recsys.models.fusion import build_fusion
from recsys.models.ranker import Ranker as Network
from recsys.models.trees import TreeQueries, TreeRanker, train_trees
from recsys.models.user_encoder import UserEncoder, UserEncoderSpec
from recsys.ranking.calibration import Calibration, Calibrations, Effect
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import SIMPLE, Blend, Ranker, SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics, build_statistics
from recsys.ranking.stored import NETWORK_FILE, TREES_FILE, load_rankers, load_statistics

F = len(FEATURES)
FEATURE_ROWS = torch.randn(20, F, generator=torch.Generator().manual_seed(5))


def trees(seed: int = 0) -> TreeRanker:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(600, F)).astype(np.float32)
    relevance = (features[:, 4] > 1).astype(np.float32)
    config = TreesConfig(trees=5, leaves=4, min_candidates=5)
    queries = TreeQueries(features, relevance, np.full(30, 20))
    return train_trees(queries, config, FEATURES, seed=0, threads=1)


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    found = Network(F, hidden=7, dropout=0.25)
    found.fit_scale(torch.randn(50, F))
    return found.eval()


def mixed(*rankers: Ranker) -> Blend:
    return Blend(rankers, [0.1 + 1 / 3 * n for n in range(len(rankers))])


def log() -> Interactions:
    return Interactions(
        user_ids=["ann", "bob"],
        kind_names=["buy"],
        n_items=3,
        user_rows=np.array([0, 0, 1, 1]),
        item_rows=np.array([0, 1, 1, 2]),
        kinds=np.zeros(4, dtype=np.int64),
        timestamps_us=np.arange(4) * 86_400_000_000,
        quantities=np.ones(4, dtype=np.float32),
    )


def user_ranker(ranker: Ranker, discovery: Ranker | None = None) -> UserRanker:
    encoder = UserEncoder(8, n_kinds=1, spec=UserEncoderSpec(8, 2, 1, history_length=5))
    return UserRanker(encoder, ranker, discovery)


def contents(
    ranker: Ranker, discovery: Ranker | None = None, held_out: UserRanker | None = None
) -> Contents:
    torch.manual_seed(0)
    now_us = 9 * 86_400_000_000
    events = pl.DataFrame(
        {
            "user_id": ["ann", "ann", "bob", "bob"],
            "item_id": ["a", "b", "b", "c"],
            "kind": "buy",
            "timestamp": pl.Series(log().timestamps_us).cast(pl.Datetime("us", "UTC")),
            "quantity": 1.0,
        }
    )
    part = RankingPart(
        events=events,
        ranker=user_ranker(ranker, discovery),
        held_out=held_out,
        choice={"all": "trees", "trials": [{"scope": "all", "ndcg": 0.25}]},
        statistics=build_statistics(log(), now_us, target_kinds=["buy"], window_days=3.0),
        target_kinds=("buy",),
        split_us=now_us,
    )
    return Contents(
        items=pl.DataFrame({"item_id": ["a", "b", "c"]}),
        item_embeddings=np.eye(3, 8, dtype=np.float32),
        fusion=build_fusion(FusionConfig(dim=8, hidden=4), {"text": 4}),
        ranking=part,
    )


PAIRS: dict[str, tuple[Callable[[], Ranker], Callable[[], Ranker] | None, set[str]]] = {
    "trees": (trees, None, {TREES_FILE}),
    "network": (network, None, {NETWORK_FILE}),
    "simple": (lambda: SimpleRanker("iALS"), None, set()),
    "trees, then network": (trees, network, {TREES_FILE, NETWORK_FILE}),
    "network, then trees": (network, trees, {TREES_FILE, NETWORK_FILE}),
    "simple, then trees": (lambda: SimpleRanker("own purchases"), trees, {TREES_FILE}),
    "network, then simple": (network, lambda: SimpleRanker("EASE"), {NETWORK_FILE}),
    "blend": (lambda: mixed(trees(), network()), None, {TREES_FILE, NETWORK_FILE}),
    "simple, then blend": (
        lambda: SimpleRanker("iALS"),
        lambda: mixed(SimpleRanker("EASE"), trees(), SimpleRanker("taste")),
        {TREES_FILE},
    ),
    "two simple ones": (lambda: SimpleRanker("EASE"), lambda: SimpleRanker("taste"), set()),
}


@pytest.mark.parametrize("name", PAIRS)
def test_rankers_score_from_the_bundle_as_before(name: str, tmp_path: Path) -> None:
    build, build_other, files = PAIRS[name]
    ranker, other = build(), build_other() if build_other else None
    bundle = Bundle(write_bundle(contents(ranker, other), tmp_path))
    found = bundle.user_ranker
    for one, wanted in ((found.ranker, ranker), (found.discovery, other or ranker)):
        assert type(one) is type(wanted)
        assert torch.equal(one(FEATURE_ROWS), wanted(FEATURE_ROWS))
        assert torch.equal(one.contributions(FEATURE_ROWS), wanted.contributions(FEATURE_ROWS))
    assert (found.ranker is found.discovery) == (other is None)
    assert {path.name for path in bundle.path.iterdir() if "ranker" in path.name} == files
    assert bundle.parts == {"ranking"}


@pytest.mark.parametrize("scope", ["all", "new"])
def test_probabilities_are_in_the_bundle_as_numbers_where_they_were_fitted(
    scope: str, tmp_path: Path
) -> None:
    effects = tuple(Effect(0.1 * n, 0.0, 1.0 + n) for n in range(3))
    fitted = Calibration(0.5, 2.0, (-1.0, 1 / 3), (-7.0, -1.0), effects)
    one = user_ranker(SimpleRanker("EASE"))
    one.calibrations = Calibrations(**{scope: fitted})
    path = write_bundle(contents(SimpleRanker("iALS"), held_out=one), tmp_path)
    found = Bundle(path)
    assert found.held_out.calibrations == one.calibrations
    assert found.user_ranker.calibrations == Calibrations()
    scores, features = torch.linspace(-3, 3, 20), FEATURE_ROWS.abs()
    stated, other = (
        found.held_out.probabilities(scores, features, exclude_seen=seen) for seen in (False, True)
    )
    if scope == "new":
        stated, other = other, stated
    assert torch.equal(stated, fitted(scores, features))
    assert other.isnan().all()


def test_what_is_served_and_what_is_held_out_are_read_apart(tmp_path: Path) -> None:
    twin = user_ranker(network(), SimpleRanker("EASE"))
    bundle = Bundle(write_bundle(contents(trees(), held_out=twin), tmp_path))
    assert isinstance(bundle.user_ranker.ranker, TreeRanker)
    assert torch.equal(bundle.held_out.ranker(FEATURE_ROWS), twin.ranker(FEATURE_ROWS))
    assert isinstance(bundle.held_out.discovery, SimpleRanker)
    assert bundle.known_at(None)[2] is bundle.user_ranker
    assert bundle.known_at(10 * 86_400_000_000)[2] is bundle.held_out
    for one, other in zip(
        bundle.held_out.encoder.parameters(), twin.encoder.parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_without_a_twin_what_is_served_is_evaluated(tmp_path: Path) -> None:
    bundle = Bundle(write_bundle(contents(trees()), tmp_path))
    assert bundle.held_out is bundle.user_ranker


@pytest.mark.parametrize("name", SIMPLE)
def test_every_simple_ranker_is_found_by_its_name(name: str, tmp_path: Path) -> None:
    found, other = load_rankers({"all": name, "new": name}, tmp_path)
    assert isinstance(found, SimpleRanker)
    assert found.name == name
    assert other is found


def test_one_model_for_both_scopes_is_written_and_read_once(tmp_path: Path) -> None:
    model = network()
    one = write_bundle(contents(model, model), tmp_path)
    assert one == write_bundle(contents(model), tmp_path)
    found = Bundle(one).user_ranker
    assert found.ranker is found.discovery


def test_equal_trees_are_equal_bundles(tmp_path: Path) -> None:
    assert write_bundle(contents(trees()), tmp_path) == write_bundle(contents(trees()), tmp_path)
    other = trees(seed=1)
    assert write_bundle(contents(trees()), tmp_path) != write_bundle(contents(other), tmp_path)


TWO_MODELS: dict[str, Callable[[], tuple[Ranker, Ranker]]] = {
    "trees": lambda: (trees(0), trees(1)),
    "network": lambda: (network(0), mixed(SimpleRanker("EASE"), network(1))),
    "blend": lambda: (mixed(SimpleRanker("EASE")), mixed(SimpleRanker("iALS"))),
}


@pytest.mark.parametrize("kind", TWO_MODELS)
def test_two_models_of_one_kind_do_not_fit_in_a_bundle(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=f"must share one model of kind '{kind}', got 2"):
        write_bundle(contents(*TWO_MODELS[kind]()), tmp_path)
    assert not list(tmp_path.glob("*/bundle.json"))


@pytest.mark.parametrize("discovery", [0, 1])
def test_a_blend_shares_its_parts_with_the_other_scope(discovery: int, tmp_path: Path) -> None:
    parts = trees(), network()
    written = write_bundle(contents(mixed(*parts), parts[discovery]), tmp_path / "one")
    found = Bundle(written).user_ranker
    assert torch.equal(found.ranker(FEATURE_ROWS), mixed(*parts)(FEATURE_ROWS))
    assert torch.equal(found.discovery(FEATURE_ROWS), parts[discovery](FEATURE_ROWS))
    # What was read can be written again, as training does with what its stage has written.
    again = write_bundle(contents(found.ranker, found.discovery), tmp_path / "two")
    assert again.name == written.name


def test_the_description_names_the_rankers_and_says_why_they_were_chosen(tmp_path: Path) -> None:
    folder = write_bundle(contents(network(), SimpleRanker("EASE")), tmp_path)
    description = json.loads((folder / "bundle.json").read_text())
    assert description["rankers"] == {
        "all": "network",
        "new": "EASE",
        "network": {"hidden": 7, "dropout": 0.25},
    }
    assert description["choice"] == {"all": "trees", "trials": [{"scope": "all", "ndcg": 0.25}]}
    assert description["features"] == list(FEATURES)


def test_statistics_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = contents(SimpleRanker("EASE"))
    assert parts.ranking is not None
    found, wanted = Bundle(write_bundle(parts, tmp_path)).statistics, parts.ranking.statistics
    assert found.tempo == wanted.tempo
    assert found.as_of_us == wanted.as_of_us
    for field in fields(Statistics):
        value = getattr(found, field.name)
        np.testing.assert_array_equal(value, getattr(wanted, field.name), field.name)


def test_the_split_is_one_moment_or_one_of_each_user(tmp_path: Path) -> None:
    parts = contents(SimpleRanker("EASE"))
    assert parts.ranking is not None
    for split_us in (5, np.array([7, 9])):
        part = replace(parts.ranking, split_us=split_us)
        bundle = Bundle(write_bundle(replace(parts, ranking=part), tmp_path))
        np.testing.assert_array_equal(np.asarray(bundle.split_us), split_us)
        assert (bundle.path / "split.npy").exists() == isinstance(split_us, np.ndarray)
        assert bundle.held_out_users is None
    part = replace(part, held_out_users=np.array([True, False]))
    bundle = Bundle(write_bundle(replace(parts, ranking=part), tmp_path))
    assert bundle.held_out_users is not None
    assert bundle.held_out_users.tolist() == [True, False]


def test_a_ranker_that_this_release_does_not_have_asks_for_training(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"ranks by 'oracle', this release by one of .*again"):
        load_rankers({"all": "oracle", "new": "EASE"}, tmp_path)


def test_trees_that_are_not_trees_are_a_broken_bundle(tmp_path: Path) -> None:
    (tmp_path / TREES_FILE).write_text("no tree at all")
    with pytest.raises(BundleError, match=f"{TREES_FILE} must be a LightGBM model"):
        load_rankers({"all": "trees", "new": "EASE"}, tmp_path)


def test_statistics_of_an_earlier_release_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "statistics.safetensors"
    save_file({"users": np.zeros((2, 1), dtype=np.float32)}, path)
    with pytest.raises(BundleError, match="train again"):
        load_statistics(path)
