"""A shop relates a product that nobody has bought yet to one that many have."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from recsys.answers import Item, Reason
from recsys.bundle import Bundle
from recsys.config import TrainConfig
from recsys.data.tables import Tables
from recsys.errors import BundleError
from recsys.pipeline import Run, train
from recsys.ranking.candidates import SOURCES
from recsys.ranking.relations import related_items
from recsys.recommender import Recommender

N_PAIRS, N_USERS, N_WEEKS = 6, 48, 10
START = datetime(2025, 1, 6, tzinfo=UTC)
END = START + timedelta(weeks=N_WEEKS)
# Whoever buys a camera buys its bag a week later. Nobody has bought a strap or a mug yet.
CAMERAS, BAGS = ([f"{name}-{n}" for n in range(N_PAIRS)] for name in ("camera", "bag"))
STRAP, MUG = "strap", "mug"
CONFIG = TrainConfig.model_validate(
    {
        "device": "cpu",
        "split": {"horizon": "1w", "n_cuts": 3},
        "text": {"hidden": 16, "vocab_size": 300, "epochs": 1},
        "fusion": {"dim": 8, "hidden": 8, "epochs": 1},
        "users": {"width": 8, "heads": 1, "epochs": 1},
        "ranker": {"kind": "trees", "trees": {"trees": 40, "leaves": 7, "min_candidates": 5}},
        "evaluation": {"ablations": False},
    }
)


def items() -> pl.DataFrame:
    names = [*CAMERAS, *BAGS, STRAP, MUG]
    return pl.DataFrame({"item_id": names, "title": [name.replace("-", " ") for name in names]})


def events() -> pl.DataFrame:
    """Every user buys a camera in a week, and its bag in the next, again and again."""
    rows = []
    for user in range(N_USERS):
        for week in range(0, N_WEEKS - 1, 2):
            pair = (user * 5 + week * user + week) % N_PAIRS
            for name, later in ((CAMERAS[pair], 0), (BAGS[pair], 7)):
                time = START + timedelta(weeks=week, days=later, hours=user)
                rows.append((f"u{user}", name, "purchase", time))
    return pl.DataFrame(rows, ["user_id", "item_id", "kind", "timestamp"], orient="row")


def relations() -> pl.DataFrame:
    pairs = [*zip(BAGS, CAMERAS, strict=True), (STRAP, CAMERAS[0])]
    return pl.DataFrame(pairs, ["left", "right"], orient="row").with_columns(
        kind=pl.lit("goes_with")
    )


class Runs(NamedTuple):
    """Two runs of one shop in one folder: first without relations, then with them."""

    without: Run
    related: Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    out = tmp_path_factory.mktemp("cameras")
    tables = Tables(items(), events(), as_of=END)
    without = train(CONFIG, out, tables=tables)
    return Runs(without, train(CONFIG, out, tables=replace(tables, relations=relations())))


def opened(run: Run) -> Recommender:
    """Return a recommender in which taste offers nothing, and most others little."""
    offers = dict.fromkeys(SOURCES, 3) | {"taste": 0, "related": 20}
    return Recommender(Bundle(run.bundle), rank_all_up_to=1, offers=offers)


def owners(recommender: Recommender) -> tuple[list[str], list[str]]:
    """Return the users who have the camera that the strap goes with, and the others."""
    row = recommender.catalogue.row_of[CAMERAS[0]]
    users = [f"u{user}" for user in range(N_USERS)]
    has = [row in recommender.history(user).item_rows for user in users]
    found = [[user for user, one in zip(users, has, strict=True) if one == kind] for kind in (1, 0)]
    assert all(found)
    return found[0], found[1]


def offered(recommender: Recommender, item_id: str, users: list[str]) -> list[bool]:
    row = recommender.catalogue.row_of[item_id]
    scores = recommender.scores(users, now=END)
    return np.isfinite(scores[:, row]).tolist()


def test_the_users_of_what_it_goes_with_are_offered_an_item_without_events(runs: Runs) -> None:
    recommender = opened(runs.related)
    having, others = owners(recommender)
    assert all(offered(recommender, STRAP, having))
    assert not any(offered(recommender, STRAP, others))
    assert not any(offered(recommender, MUG, [*having, *others])), "nothing speaks for it"
    before = opened(runs.without)
    assert not any(offered(before, STRAP, having))


def test_the_ranker_has_learned_what_a_relation_is_worth(runs: Runs) -> None:
    recommender = Recommender(Bundle(runs.related.bundle))
    for user in owners(recommender)[0]:
        strap, mug = recommender.rank(user, [MUG, STRAP], now=END, explain=True)
        assert (strap.item_id, mug.item_id) == (STRAP, MUG)
        assert strap.score > mug.score
        assert strap.reason == Reason("related", CAMERAS[0], "Goes with camera 0")
        assert "related_goes_with" in dict(strap.features)


def test_new_relations_train_nothing_but_the_ranker_again(runs: Runs) -> None:
    assert not any(stage.skipped for stage in runs.without.stages)
    again = {stage.name for stage in runs.related.stages if not stage.skipped}
    assert again == {"statistics", "ranker"}


def test_relations_are_in_the_bundle_and_known_at_every_moment(runs: Runs) -> None:
    bundle = Bundle(runs.related.bundle)
    for wanted, found in ((relations(), bundle), (None, Bundle(runs.without.bundle))):
        names = found.items["item_id"].to_list()
        expected = related_items(
            None if wanted is None else wanted.with_columns(weight=pl.lit(1.0)), names
        )
        for moment in (None, found.split_us):
            _, statistics, _ = found.known_at(moment)
            for one, other in zip(statistics.related, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert bundle.statistics.related.rows.size


def test_an_item_that_is_added_live_has_no_relations(runs: Runs) -> None:
    recommender = opened(runs.related)
    having, _ = owners(recommender)
    recommender.add_items([Item("filter", title="camera 0 filter")])
    assert not any(offered(recommender, "filter", having))
    assert all(offered(recommender, STRAP, having)), "the others keep theirs"


def test_damaged_relations_are_refused(runs: Runs, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs.related.bundle, tmp_path / runs.related.bundle.name))
    path = copy / "statistics.safetensors"
    arrays = load_file(path)
    arrays["related_weights"] = 2 * arrays["related_weights"]
    save_file(arrays, path)
    with pytest.raises(BundleError, match=r"statistics.safetensors was changed in bundle"):
        Bundle(copy)
