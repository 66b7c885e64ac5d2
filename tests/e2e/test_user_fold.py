"""A shop asks how good the lists are for people whom training has never seen."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.config import TrainConfig
from recsys.data.arrays import Bools
from recsys.data.tables import Tables
from recsys.errors import LeakageError
from recsys.evaluation.run_report import evaluate
from recsys.evaluation.systems import bundle_queries, recommender_scorers
from recsys.pipeline import train
from recsys.ranking.statistics import Statistics
from recsys.recommender import Recommender
from recsys.training.cuts import FOREVER_US

N_ITEMS, N_USERS, N_VISITS = 12, 40, 15
START = datetime(2025, 1, 6, tzinfo=UTC)
CONFIG = TrainConfig.model_validate(
    {
        "device": "cpu",
        "split": {"protocol": "user_fold", "folds": 4, "fold": 1, "n_cuts": 2},
        "text": {"hidden": 16, "vocab_size": 300, "epochs": 1},
        "fusion": {"dim": 8, "hidden": 8, "epochs": 1},
        "users": {"width": 8, "heads": 1, "epochs": 1},
        "ranker": {"kind": "trees", "trees": {"trees": 10, "leaves": 7, "min_candidates": 5}},
        "evaluation": {"ablations": False, "scopes": ["all", "new"]},
    }
)


def items() -> pl.DataFrame:
    names = [f"mug-{n}" for n in range(N_ITEMS)]
    return pl.DataFrame({"item_id": names, "title": [name.replace("-", " ") for name in names]})


def events() -> pl.DataFrame:
    """Every user takes the next item but one, from an item of their own on."""
    rows = [
        (f"u{user}", f"mug-{(user + 2 * visit) % N_ITEMS}", START + timedelta(visit, user))
        for user in range(N_USERS)
        for visit in range(N_VISITS)
    ]
    table = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    return table.with_columns(kind=pl.lit("purchase"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("folds")
    return Bundle(train(CONFIG, out, tables=Tables(items(), events())).bundle)


def held_out_of(bundle: Bundle) -> Bools:
    assert bundle.held_out_users is not None
    return bundle.held_out_users


def test_the_held_out_users_and_no_others_are_asked_for_their_last_fifth(bundle: Bundle) -> None:
    held_out = held_out_of(bundle)
    assert 0 < held_out.sum() < N_USERS / 2
    (queries,) = bundle_queries(bundle, ["all"])
    np.testing.assert_array_equal(queries.user_rows, np.flatnonzero(held_out))
    log, split = bundle.interactions, np.asarray(bundle.split_us)
    for user, right in zip(queries.user_rows, queries.relevant, strict=True):
        own = log.item_rows[log.user_rows == user]
        assert set(right.tolist()) == set(own[-3:].tolist())
    assert (split[~held_out] == FOREVER_US).all()


def test_removing_the_held_out_users_changes_no_bit_of_what_is_known_at_the_split(
    bundle: Bundle,
) -> None:
    """Their own events are in their histories all the same."""
    past, known, _ = bundle.known_at(bundle.split_us)
    alone = Bundle(bundle.path)
    alone.interactions = bundle.interactions.without_users(held_out_of(bundle))
    _, wanted, _ = alone.known_at(bundle.split_us)
    for field in fields(Statistics):
        one, other = getattr(known, field.name), getattr(wanted, field.name)
        np.testing.assert_array_equal(one, other, field.name)
    counts = np.bincount(past.user_rows, minlength=N_USERS)
    assert counts.tolist() == [12 if one else 15 for one in held_out_of(bundle)]


def test_what_a_held_out_user_did_before_counts_for_their_list(bundle: Bundle) -> None:
    user = int(np.flatnonzero(held_out_of(bundle))[0])
    other = Bundle(bundle.path)
    log = bundle.interactions
    changed = np.where(log.user_rows == user, (log.item_rows + 1) % N_ITEMS, log.item_rows)
    other.interactions = replace(log, item_rows=changed)
    rows = np.flatnonzero(held_out_of(bundle))
    one, two = (recommender_scorers(each).scorer(rows) for each in (bundle, other))
    assert not np.array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1:], two[1:])


def test_the_report_has_every_system_and_what_is_served_knows_all_users(bundle: Bundle) -> None:
    report = evaluate(bundle, CONFIG.evaluation)
    (table,) = [one for one in report.rankings if one.scope == "all"]
    assert table.n_users == held_out_of(bundle).sum()
    scores = {row.name: row.metrics["ndcg@10"].mean for row in table.systems}
    assert len(scores) >= 6
    assert scores["vitrine"] > scores["popularity"]
    assert bundle.statistics.users.max() > bundle.known_at(bundle.split_us)[1].users.max()
    user = bundle.interactions.user_ids[int(np.flatnonzero(held_out_of(bundle))[0])]
    assert len(Recommender(bundle).history(user).item_rows) == N_VISITS


def test_a_test_user_whom_training_saw_raises(bundle: Bundle) -> None:
    leaking = Bundle(bundle.path)
    leaking.held_out_users = np.zeros(N_USERS, dtype=np.bool_)
    with pytest.raises(LeakageError, match="held out from training"):
        evaluate(leaking)
