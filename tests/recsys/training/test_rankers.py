from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from recsys.config import SplitConfig
from recsys.data.interactions import Moment
from recsys.models.ranker import Ranker as Network
from recsys.models.trees import TreeRanker
from recsys.ranking.features import FEATURES
from recsys.ranking.rankers import SIMPLE, Blend, SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import Statistics, build_statistics
from recsys.ranking.stored import ENCODER_FILE, NETWORK_FILE, TREES_FILE
from recsys.training.cuts import FOREVER_US, choose_cuts, held_out_users
from recsys.training.inputs import ShopData
from recsys.training.known import count_events
from recsys.training.rankers import HELD_OUT, SERVED, take_snapshots
from recsys.training.ranking import Snapshot
from recsys.training.selection import Choice, Trial
from recsys.training.stack import Stack, train_stack
from tests.recsys.training.stack_material import (
    CONFIG,
    CUTS_US,
    N_ITEMS,
    N_USERS,
    behaviour,
    below,
    known,
    made_runtime,
    material,
    of_kind,
    ranking_of,
    shop,
    trained,
    weights,
    with_changed,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace in which the stack was trained."""
    folder = tmp_path_factory.mktemp("stages")
    trained(folder, material())
    return folder


def random_features() -> torch.Tensor:
    return torch.randn(50, len(FEATURES), generator=torch.Generator().manual_seed(0))


def ranked(stack: Stack) -> torch.Tensor:
    """Return what both held-out rankers give some random features, (2, 50)."""
    return scores_of(ranking_of(stack).held_out)


def scores_of(one: UserRanker | None) -> torch.Tensor:
    assert one is not None
    features = random_features()
    with torch.no_grad():
        return torch.stack([one.ranker(features), one.discovery(features)])


def test_other_features_train_the_ranker_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.training.rankers.FEATURES", (*FEATURES[1:], "another"))
    assert trained(folder, material())[1] == {
        "items": True,
        "statistics": True,
        "users": True,
        "ranker": False,
    }


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_what_happens_after_the_split_reaches_nothing(
    kind: Literal["trees", "network"], folder: Path, tmp_path: Path
) -> None:
    one = trained(folder, material(), of_kind(kind))[0]
    other = trained(tmp_path, with_changed(CUTS_US[-1]), of_kind(kind))[0]
    for mine, theirs in zip(below(one), below(other), strict=True):
        assert torch.equal(weights(mine), weights(theirs))
    assert torch.equal(ranked(one), ranked(other))
    assert ranking_of(one).choice == ranking_of(other).choice


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_what_is_evaluated_learns_from_the_window_before_the_split_and_what_is_served_from_all(
    kind: Literal["network", "trees"], folder: Path, tmp_path: Path
) -> None:
    """What was bought in the test window reaches the served ranker and its encoder alone."""
    one, in_last, in_test = (
        ranking_of(trained(where, changed, of_kind(kind))[0])
        for where, changed in (
            (folder, material()),
            (tmp_path / "last", with_changed(CUTS_US[-2])),
            (tmp_path / "test", with_changed(CUTS_US[-1])),
        )
    )
    assert not torch.equal(scores_of(one.held_out), scores_of(in_last.held_out))
    assert torch.equal(scores_of(one.held_out), scores_of(in_test.held_out))
    assert not torch.equal(scores_of(one.served), scores_of(in_test.served))
    for part, same in (("held_out", True), ("served", False)):
        mine, theirs = (weights(getattr(found, part).encoder) for found in (one, in_test))
        assert torch.equal(mine, theirs) is same


def test_statistics_are_those_of_each_cut_the_split_and_the_end(tmp_path: Path) -> None:
    items = count_events(behaviour(), made_runtime(tmp_path))
    end_us = int(known().timestamps_us[-1]) + 1
    assert items.n_moments == len(CUTS_US) + 1
    for number, moment in enumerate((*CUTS_US, end_us)):
        found = items.at(number)
        wanted = build_statistics(known(), moment, target_kinds=("buy",), window_days=10.0)
        assert (found.as_of_us, found.tempo) == (wanted.as_of_us, wanted.tempo)
        for field in fields(Statistics):
            mine, theirs = getattr(found, field.name), getattr(wanted, field.name)
            np.testing.assert_array_equal(mine, theirs)
    assert items.at(-1).as_of_us == end_us
    with pytest.raises(IndexError):
        items.at(4)


def test_what_is_only_evaluated_learns_from_nothing_after_the_split(
    folder: Path, tmp_path: Path
) -> None:
    runtime = made_runtime(tmp_path)
    items = count_events(behaviour(), runtime)
    found = ranking_of(train_stack(material(), items, CONFIG, runtime, served=False))
    assert found.served is None
    whole = ranking_of(trained(folder, material())[0])
    assert torch.equal(scores_of(found.held_out), scores_of(whole.held_out))


def test_a_test_window_without_events_leaves_what_is_served_with_the_earlier_ones(
    tmp_path: Path,
) -> None:
    past = known().before(CUTS_US[-1])
    found = ranking_of(trained(tmp_path, material(shop(interactions=past)))[0])
    assert torch.equal(scores_of(found.held_out), scores_of(found.served))


def test_a_kind_of_ranker_ranks_in_both_scopes(folder: Path) -> None:
    network, trees = (
        ranking_of(trained(folder, material(), of_kind(kind))[0]) for kind in ("network", "trees")
    )
    for one, other in ((network.held_out, trees.held_out), (network.served, trees.served)):
        assert one is not None
        assert other is not None
        assert isinstance(one.ranker, Network)
        assert isinstance(one.discovery, Network)
        assert isinstance(other.ranker, TreeRanker)
        assert isinstance(other.discovery, TreeRanker)
    assert network.choice[:2] == ("network", "network")
    assert {one.name for one in network.choice.trials} == {*SIMPLE, "network"}
    assert {one.name for one in trees.choice.trials} == {*SIMPLE, "trees"}


def test_by_default_the_last_window_compares_every_ranker(folder: Path) -> None:
    ranking = ranking_of(trained(folder, material(), of_kind("auto"))[0])
    for scope in ("all", "new"):
        found = {one.name for one in ranking.choice.trials if one.scope == scope}
        assert found == {*SIMPLE, "network", "trees", "blend"}


def test_chosen_trees_are_the_same_alone_and_in_a_blend(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both learn from all windows once the choice is made."""
    monkeypatch.setattr(
        "recsys.training.rankers.choose_ranker", lambda *_, **__: Choice("blend", "trees", ())
    )
    both = ranking_of(trained(folder, material(), of_kind("auto"), suffix="-both")[0])
    alone = ranked(trained(folder, material(), of_kind("trees"))[0])
    blend = both.held_out.ranker
    assert isinstance(blend, Blend)
    features = random_features()
    network, trees = blend.rankers
    with torch.no_grad():
        scores = network(features), trees(features)
        wanted = sum(weight * one for weight, one in zip(blend.weights, scores, strict=True))
        torch.testing.assert_close(blend(features), wanted)
    assert torch.equal(scores[1], alone[0])
    assert torch.equal(both.held_out.discovery(features), alone[1])


@pytest.mark.parametrize("kind", ["auto", "trees"])
def test_a_choice_is_made_once_and_read_back_the_next_time(
    kind: Literal["auto", "trees"], folder: Path
) -> None:
    one, skipped = trained(folder, material(), of_kind(kind), suffix="-once")
    assert not skipped["ranker-once"]
    same, skipped = trained(folder, material(), of_kind(kind), suffix="-once")
    assert skipped["ranker-once"]
    assert ranking_of(one).choice == ranking_of(same).choice
    assert torch.equal(ranked(one), ranked(same))


@pytest.mark.parametrize(
    ("chosen", "files"),
    [
        (("trees", "network"), {TREES_FILE, NETWORK_FILE}),
        (("blend", "trees"), {TREES_FILE, NETWORK_FILE}),
        (("iALS", "blend"), {TREES_FILE, NETWORK_FILE}),
        (("EASE", "trees"), {TREES_FILE}),
        (("network", "popularity"), {NETWORK_FILE}),
        (("own purchases", "EASE"), set()),
    ],
)
def test_each_scope_gets_the_ranker_that_was_chosen_for_it(
    chosen: tuple[str, str],
    files: set[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice = Choice(*chosen, (Trial("all", chosen[0], 0.5),))
    monkeypatch.setattr("recsys.training.rankers.choose_ranker", lambda *_, **__: choice)
    suffix = f"-{chosen[0]}-{chosen[1]}".replace(" ", "-")
    runtime = made_runtime(folder)
    items = count_events(behaviour(), runtime)
    ranking = ranking_of(train_stack(material(), items, of_kind("auto"), runtime, suffix=suffix))
    assert ranking.choice == choice
    kinds = {"trees": TreeRanker, "network": Network, "blend": Blend}
    (stage,) = (one.folder for one in runtime.workspace.stages if one.name == f"ranker{suffix}")
    for folder_name, fitted in ((HELD_OUT, ranking.held_out), (SERVED, ranking.served)):
        assert fitted is not None
        for name, ranker in zip(chosen, (fitted.ranker, fitted.discovery), strict=True):
            assert isinstance(ranker, kinds.get(name, SimpleRanker))
            if isinstance(ranker, SimpleRanker):
                assert ranker.name == name
        written = {path.name for path in (stage / folder_name).iterdir()}
        assert written == {ENCODER_FILE, *files}


def snapshots(of: ShopData, folder: Path) -> list[Snapshot]:
    items = count_events(behaviour(of), made_runtime(folder))
    return list(take_snapshots(behaviour(of), np.eye(N_ITEMS, dtype=np.float32), items))


def test_a_snapshot_knows_what_lay_before_its_cut(tmp_path: Path) -> None:
    one, other = (
        snapshots(chosen, tmp_path / name)[0]
        for name, chosen in (("a", shop()), ("b", with_changed(CUTS_US[0]).shop))
    )
    for name in ("users", "buyers", "season_users", "factors", "created_us", "embeddings"):
        assert torch.equal(getattr(one.table, name), getattr(other.table, name))
    for name in ("ease", "cosine", "following"):
        mine, theirs = getattr(one.table, name), getattr(other.table, name)
        assert torch.equal(mine.rows, theirs.rows)
        assert torch.equal(mine.weights, theirs.weights)
    assert one.table.tempo == other.table.tempo
    assert one.table.tempo.window_days == 10
    assert one.moments_us.tolist() == [CUTS_US[0]] * N_USERS
    statistics = build_statistics(known(), CUTS_US[0], target_kinds=("buy",), window_days=10.0)
    assert not np.array_equal(statistics.users, statistics.buyers)
    for name in ("users", "buyers"):
        wanted = torch.from_numpy(np.log1p(getattr(statistics, name)))
        torch.testing.assert_close(getattr(one.table, name), wanted)
    assert one.table.target_kinds.tolist() == [True, False]


def test_a_snapshot_answers_with_what_was_bought_until_the_next(tmp_path: Path) -> None:
    shot = snapshots(shop(), tmp_path)[0]
    past = known()
    wanted: list[set[int]] = [set() for _ in range(N_USERS)]
    for user, row, kind, time in zip(
        past.user_rows, past.item_rows, past.kinds, past.timestamps_us, strict=True
    ):
        if past.kind_names[kind] == "buy" and CUTS_US[0] <= time < CUTS_US[1]:
            wanted[user].add(int(row))
    assert any(wanted)
    assert [set(rows.tolist()) for rows in shot.answers] == wanted


@pytest.mark.parametrize(("cut", "there"), [(0, []), (1, [125, 127])])
def test_items_come_on_offer_when_created_or_when_first_met(
    cut: int, there: list[int], tmp_path: Path
) -> None:
    """Item 125 is met on day 45, 126 never, 127 is created on day 45; 0 can no longer be bought."""
    shot = snapshots(shop(), tmp_path)[cut]
    assert shot.candidates.tolist() == [*range(125), *there]


def own_cuts() -> tuple[Moment, ...]:
    """Return cuts of each user, by the times of what they bought."""
    return choose_cuts(known(), ("buy",), SplitConfig(protocol="user_time", n_cuts=2))


def test_where_users_have_cuts_of_their_own_each_answers_with_what_came_between_them(
    tmp_path: Path,
) -> None:
    cuts, past = own_cuts(), known()
    shots = snapshots(shop(cuts_us=cuts), tmp_path)
    forever = np.full(N_USERS, FOREVER_US)
    for shot, start, end in zip(shots, cuts, [*cuts[1:], forever], strict=True):
        start, end = np.asarray(start), np.asarray(end)
        np.testing.assert_array_equal(shot.moments_us, start)
        wanted: list[set[int]] = [set() for _ in range(N_USERS)]
        for user, row, kind, time in zip(
            past.user_rows, past.item_rows, past.kinds, past.timestamps_us, strict=True
        ):
            if past.kind_names[kind] == "buy" and start[user] <= time < end[user]:
                wanted[user].add(int(row))
        assert [set(rows.tolist()) for rows in shot.answers] == wanted
        assert all(wanted)


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_what_each_user_does_after_their_own_split_reaches_nothing(
    kind: Literal["network", "trees"], tmp_path: Path
) -> None:
    cuts, past = own_cuts(), known()
    split = np.asarray(cuts[-1])[past.user_rows]
    rows = np.where(past.timestamps_us < split, past.item_rows, (past.item_rows + 5) % 125)
    one, other = (
        trained(tmp_path / name, material(shop(cuts_us=cuts, interactions=of)), of_kind(kind))[0]
        for name, of in (("a", past), ("b", replace(past, item_rows=rows)))
    )
    assert torch.equal(ranked(one), ranked(other))
    assert ranking_of(one).choice == ranking_of(other).choice


def fold_cuts() -> tuple[Moment, ...]:
    """Return cuts by which a fold of the users is held out."""
    return choose_cuts(known(), ("buy",), SplitConfig(protocol="user_fold", folds=4, n_cuts=2))


def test_a_fold_answers_in_the_last_window_alone(tmp_path: Path) -> None:
    cuts, past = fold_cuts(), known()
    held_out = held_out_users(cuts)
    assert held_out is not None
    *windows, last = snapshots(shop(cuts_us=cuts), tmp_path)
    for shot in windows:
        answering = np.array([len(rows) > 0 for rows in shot.answers])
        np.testing.assert_array_equal(answering, ~held_out)
    for user, rows in enumerate(last.answers):
        own = past.where((past.user_rows == user) & (past.kinds == past.kind_names.index("buy")))
        n_asked = -(-len(own) // 5) if held_out[user] else 0
        wanted = own.item_rows[len(own) - n_asked :]
        np.testing.assert_array_equal(rows, np.unique(wanted))


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_what_a_fold_of_the_users_did_reaches_nothing_but_what_is_served(
    kind: Literal["network", "trees"], tmp_path: Path
) -> None:
    """The others have other items, fewer events, and other times."""
    cuts, past = fold_cuts(), known()
    held_out = held_out_users(cuts)
    assert held_out is not None
    hidden = held_out[past.user_rows]
    moved = np.where(hidden, (past.item_rows + 5) % 125, past.item_rows)
    fewer = replace(past, item_rows=moved).where(~hidden | (np.arange(len(past)) % 3 > 0))
    stacks = [
        trained(tmp_path / name, material(shop(cuts_us=cuts, interactions=of)), of_kind(kind))[0]
        for name, of in (("a", past), ("b", fewer))
    ]
    one, other = stacks
    assert torch.equal(ranked(one), ranked(other))
    assert ranking_of(one).choice == ranking_of(other).choice
    for number in range(-4, 0):
        mine, theirs = (stack.items.at(number) for stack in stacks if stack.items is not None)
        same = [
            np.array_equal(getattr(mine, field.name), getattr(theirs, field.name))
            for field in fields(Statistics)
            if field.name != "tempo"
        ]
        assert (all(same) and mine.tempo == theirs.tempo) == (number != -1)
    served = [ranking_of(stack).served for stack in stacks]
    encoders = [weights(one.encoder) for one in served if one is not None]
    assert not torch.equal(*encoders)
