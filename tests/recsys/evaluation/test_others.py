"""Other bundles and lists beside a bundle: the same system scores the same however it comes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import evaluate
from recsys.bundle import Bundle
from recsys.cli.output import print_report
from recsys.config import EvaluationConfig
from recsys.data.arrays import Floats, Ints
from recsys.data.timestamps import from_us
from recsys.errors import DataError, InvalidArgumentError, MissingPartError
from recsys.evaluation.others import bundle_system, other_systems
from recsys.evaluation.page import write_report
from recsys.evaluation.results import Report, SystemRow
from recsys.evaluation.systems import OURS, Scorers, bundle_queries
from recsys.pipeline import Run
from recsys.recommender import Recommender

QUICK = EvaluationConfig(scopes=("all",))


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


@pytest.fixture(scope="module")
def own_list(tiny_bundle: Path) -> pl.DataFrame:
    """What the bundle recommends to every user it is asked for, as a table."""
    bundle = Bundle(tiny_bundle)
    recommender = Recommender(bundle, as_of=bundle.split_us)
    (queries,) = bundle_queries(bundle, ["all"])
    ids = [bundle.interactions.user_ids[row] for row in queries.user_rows]
    scores = recommender.scores(ids, now=from_us(bundle.split_us or 0))
    return pl.DataFrame(
        {
            "user_id": np.repeat(ids, scores.shape[1]),
            "item_id": np.tile(bundle.items["item_id"].to_numpy(), len(ids)),
            "score": scores.ravel(),
        }
    )


def rows_of(report: Report) -> dict[str, SystemRow]:
    return {row.name: row for row in report.rankings[0].systems}


@pytest.fixture(scope="module")
def compared(tiny_run: Run, own_list: pl.DataFrame) -> dict[str, SystemRow]:
    report = evaluate(
        Bundle(tiny_run.bundle),
        QUICK,
        bundles={"again": tiny_run.bundle, "words": tiny_run.ablations["text-only"]},
        lists={"exported": own_list},
    )
    return rows_of(report)


def test_a_bundle_its_copy_and_its_exported_list_have_the_same_scores(
    compared: dict[str, SystemRow],
) -> None:
    ours = compared[OURS]
    for name, role in (("again", "bundle"), ("exported", "list")):
        assert compared[name].role == role
        assert compared[name].metrics == ours.metrics
        assert compared[name].coverage == ours.coverage
        assert compared[name].behind["ndcg@10"] == (0, 0, 0)


def test_the_list_says_what_was_removed_from_it_and_other_systems_do_not(
    compared: dict[str, SystemRow], own_list: pl.DataFrame
) -> None:
    counts = compared["exported"].counts
    assert counts is not None
    assert (counts.rows, counts.repeated, counts.users_without) == (len(own_list), 0, 0)
    assert all(row.counts is None for name, row in compared.items() if name != "exported")


def test_another_bundle_is_asked_by_ids_whatever_rows_it_gives_them(
    bundle: Bundle, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, events, n_items = Bundle(tiny_run.bundle), bundle.interactions, len(bundle.items)
    assert bundle.split_us is not None
    later = events.item_rows[events.timestamps_us >= bundle.split_us]
    lacking = int(np.setdiff1d(np.arange(n_items), later)[0])  # an item that the other lacks
    places = np.delete(np.arange(n_items)[::-1], n_items - 1 - lacking)  # its items, in our rows
    other.items = bundle.items[places.tolist()]
    kept = events.where(events.item_rows != lacking)
    other.interactions = replace(
        kept,
        n_items=n_items - 1,
        user_ids=events.user_ids[::-1],
        user_rows=events.n_users - 1 - kept.user_rows,
        item_rows=np.argsort(places)[np.searchsorted(np.sort(places), kept.item_rows)],
    )

    def scorer(user_rows: Ints) -> Floats:  # in the rows of the other: user times a thousand + item
        return np.float32(1000 * user_rows[:, None] + np.arange(n_items - 1))

    monkeypatch.setattr(
        "recsys.evaluation.others.recommender_scorers", lambda bundle: Scorers(scorer, None)
    )
    found = bundle_system("bundle", "other", other, bundle).scorer(np.array([3, 1]))
    assert np.isneginf(found[:, lacking]).all()
    users = events.n_users - 1 - np.array([3, 1])
    np.testing.assert_array_equal(found[:, places], scorer(users))


def test_a_bundle_of_another_split_is_an_error(bundle: Bundle, tiny_run: Run) -> None:
    other = Bundle(tiny_run.bundle)
    assert bundle.split_us is not None
    other.split_us = bundle.split_us + 1
    with pytest.raises(DataError, match=r"bundle new must have the split of the first, .*, got"):
        bundle_system("bundle", "new", other, bundle)


def test_a_bundle_of_other_events_after_the_split_is_an_error(
    bundle: Bundle, tiny_run: Run
) -> None:
    other = Bundle(tiny_run.bundle)
    events = other.interactions
    other.interactions = events.where(np.arange(len(events)) < len(events) - 2)
    with pytest.raises(DataError, match=r"must have the events of the first after the split, .*"):
        bundle_system("bundle", "new", other, bundle)
    items = events.item_rows.copy()
    items[-1] = (items[-1] + 1) % events.n_items  # as many events, one of another item
    other.interactions = replace(events, item_rows=items)
    with pytest.raises(DataError, match=r"got [\d,]+, of which [\d,]+ are the same; train both"):
        bundle_system("bundle", "new", other, bundle)


def test_a_bundle_with_other_events_before_the_split_is_compared(
    bundle: Bundle, tiny_run: Run
) -> None:
    other = Bundle(tiny_run.bundle)
    events = other.interactions
    other.interactions = events.where(np.arange(len(events)) > 5)
    assert bundle_system("bundle", "later", other, bundle).name == "later"


def test_two_systems_of_one_name_are_an_error(bundle: Bundle, own_list: pl.DataFrame) -> None:
    with pytest.raises(InvalidArgumentError, match=r"several called \['popularity'\]; rename one"):
        evaluate(bundle, QUICK, lists={"popularity": own_list})


def test_what_is_not_a_mapping_or_not_a_table_is_refused_by_name(
    bundle: Bundle, own_list: pl.DataFrame, tiny_bundle: Path
) -> None:
    wrong: Any = own_list
    with pytest.raises(InvalidArgumentError, match=r"lists must be a mapping .* got DataFrame"):
        evaluate(bundle, QUICK, lists=wrong)
    paths: Any = [tiny_bundle]
    with pytest.raises(InvalidArgumentError, match=r"bundles must be a mapping .* got list"):
        evaluate(bundle, QUICK, bundles=paths)
    lazy: Any = own_list.lazy()
    with pytest.raises(InvalidArgumentError, match=r"list als must be a path, .* call .collect"):
        evaluate(bundle, QUICK, lists={"als": lazy})


def test_what_recommend_many_returns_is_such_a_list(bundle: Bundle) -> None:
    recommender = Recommender(bundle, as_of=bundle.split_us)
    now = from_us(bundle.split_us or 0)
    table = recommender.recommend_many(bundle.interactions.user_ids, 20, now=now)
    rows = rows_of(evaluate(bundle, QUICK, lists={"table": table}))
    for metric in ("ndcg@10", "recall@20"):
        assert rows["table"].metrics[metric] == pytest.approx(rows[OURS].metrics[metric])


def test_a_list_that_serves_nobody_scores_zero_on_the_page_and_in_the_terminal(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = pl.DataFrame({"user_id": ["who"], "item_id": ["what"], "rank": [1]})
    report = evaluate(bundle, QUICK, lists={"nobody": nobody})
    row = rows_of(report)["nobody"]
    assert row.metrics["ndcg@10"] == (0, 0, 0)
    assert row.metrics["auc"].mean == 0.5  # every item is tied
    assert row.counts is not None
    assert (row.counts.unknown_users, row.counts.unknown_items) == (1, 0)
    assert row.counts.users_without == report.rankings[0].n_users
    assert row.shown is not None
    assert row.shown.novelty == {10: None, 20: None}
    assert "users without a list, who score 0" in write_report(report, tmp_path).read_text("utf-8")
    print_report(report)
    assert "nobody: removed rows: 1 of unknown users" in capsys.readouterr().out


def test_a_bundle_without_ranking_cannot_be_compared(bundle: Bundle, tiny_run: Run) -> None:
    class Bare(Bundle):
        parts = frozenset()

    with pytest.raises(MissingPartError):
        other_systems(bundle, bundles={"bare": Bare(tiny_run.bundle)})
