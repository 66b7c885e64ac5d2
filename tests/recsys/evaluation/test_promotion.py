"""A nightly run: the tiny shop's bundle, and events after it."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys import refresh
from recsys.answers import Event
from recsys.bundle import Bundle
from recsys.bundle.finding import find_bundle
from recsys.data.synthetic import Shop
from recsys.data.timestamps import from_us
from recsys.errors import BundleError, DataError, InvalidArgumentError, MissingPartError
from recsys.evaluation.promotion import RECORD, Refreshed
from recsys.pipeline import Run
from recsys.recommender import Recommender
from tests.later_events import as_recommended, copy_alone, repeat


@pytest.fixture(scope="module")
def events(tiny_shop: Shop) -> pl.DataFrame:
    return pl.read_parquet(tiny_shop.events)


@pytest.fixture(scope="module")
def month(events: pl.DataFrame) -> pl.DataFrame:
    """A month of later events, all of them after the test window of the old bundle."""
    return repeat(events, 31)


@pytest.fixture(scope="module")
def done(tiny_run: Run, month: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Refreshed:
    """A refresh with files, half of whose rows the bundle has, and one is of an unknown item."""
    folder = tmp_path_factory.mktemp("refresh")
    known = Bundle(tiny_run.bundle).events.tail(50)
    unknown = month.head(1).with_columns(item_id=pl.lit("unheard-of"))
    pl.concat([known, month, unknown]).write_parquet(folder / "new.parquet")
    return refresh(copy_alone(tiny_run.bundle, folder / "runs"), folder / "new.parquet")


@pytest.fixture
def runs(tiny_run: Run, tmp_path: Path) -> Path:
    return copy_alone(tiny_run.bundle, tmp_path / "runs")


def test_the_new_bundle_is_the_latest_and_knows_the_later_events(
    done: Refreshed, month: pl.DataFrame, tiny_run: Run
) -> None:
    assert done.promoted
    assert find_bundle(done.bundle.parent) == done.bundle
    old, new = Bundle(tiny_run.bundle), Bundle(done.bundle)
    assert len(new.interactions) == len(old.interactions) + len(month)
    assert done.events[1:4] == (len(month), 50, 1)
    assert new.as_of_us == month["timestamp"].dt.timestamp("us").max() + 1
    assert new.statistics.as_of_us == new.as_of_us
    assert new.split_us == done.comparison.split_us > old.split_us
    assert new.settings == old.settings
    assert new.offers == old.offers
    assert len(Recommender(new).recommend("a stranger", k=3)) == 3


def test_everything_but_the_ranking_part_is_that_of_the_old_bundle(
    done: Refreshed, tiny_run: Run
) -> None:
    ranking = {"events.parquet", "statistics.safetensors", "user_encoder.safetensors"}
    ranking |= {"ranker_trees.txt", "held_out", "bundle.json", "manifest.json"}
    old = {path.relative_to(tiny_run.bundle) for path in files(tiny_run.bundle)}
    assert old == {path.relative_to(done.bundle) for path in files(done.bundle)}
    for name in old:
        same = (tiny_run.bundle / name).read_bytes() == (done.bundle / name).read_bytes()
        assert same is (name.parts[0] not in ranking), name


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_decision_and_its_figures_are_written_beside_the_bundles(done: Refreshed) -> None:
    record = json.loads((done.bundle.parent / RECORD).read_text())
    assert record == json.loads(json.dumps(done.record))
    assert record["bundle"] == done.bundle.name
    assert record["events"]["left_out"] == {"item_id|known": 1}
    compared = done.comparison
    assert record["comparison"]["difference"]["mean"] == compared.difference.mean
    assert compared.new - compared.old == pytest.approx(compared.difference.mean)
    assert f"{compared.old:.3f} by the served rankers of the old" in done.sentence
    assert done.sentence.endswith(f"not found worse: {done.bundle.name} is the latest")


def test_the_old_bundle_is_scored_as_it_would_have_answered_at_the_split(
    done: Refreshed, tiny_run: Run, events: pl.DataFrame
) -> None:
    """By the definition, with the old bundle's own histories and the events since as live ones."""
    old, new = Bundle(tiny_run.bundle), Bundle(done.bundle)
    at = from_us(done.comparison.split_us)
    recommender = Recommender(old)
    created = old.items["created_at"]
    met = old.items["item_id"].is_in(
        new.events.filter(pl.col("timestamp") < at)["item_id"].implode()
    )
    offered = pl.select(pl.when(created.is_null()).then(met).otherwise(created <= at)).to_series()
    users, per_user = set(new.events.filter(pl.col("timestamp") < at)["user_id"]), []
    for (user,), rows in new.events.group_by("user_id"):
        taken = rows.filter(pl.col("timestamp") >= at, pl.col("kind").is_in(["purchase", "cart"]))[
            "item_id"
        ].unique()
        right = set(taken) & set(old.items["item_id"].filter(offered))
        if not right or user not in users:
            continue
        since = rows.filter(pl.col("timestamp") < at, pl.col("timestamp") >= from_us(old.as_of_us))
        live = [
            Event(*row) for row in since.select("user_id", "item_id", "kind", "timestamp").rows()
        ]
        history = recommender.history(str(user), live)
        scores = recommender.scores([history], now=at, mask=offered.to_numpy())[0]
        shown = old.items["item_id"].gather(np.argsort(-scores, kind="stable")[:10])
        gain = sum(1 / np.log2(2 + rank) for rank, item in enumerate(shown) if item in right)
        per_user.append(gain / sum(1 / np.log2(2 + rank) for rank in range(min(10, len(right)))))
    assert len(per_user) == done.comparison.n_users
    assert np.mean(per_user) == pytest.approx(done.comparison.old, abs=2e-3)  # ties


@pytest.mark.slow
def test_what_happens_in_the_test_window_reaches_nothing_that_is_compared(
    runs: Path, month: pl.DataFrame, done: Refreshed
) -> None:
    at = from_us(done.comparison.split_us)
    items = pl.Series(month["item_id"].unique().sort())
    moved = pl.col("item_id").replace(items.to_list(), items.reverse().to_list())
    other = pl.when(pl.col("timestamp") >= at).then(moved).otherwise("item_id")
    found = refresh(runs, month.with_columns(item_id=other))
    assert found.bundle != done.bundle
    for name in ("user_encoder.safetensors", "ranker_trees.txt"):
        parts = [(one.bundle / "held_out" / name).read_bytes() for one in (found, done)]
        assert parts[0] == parts[1]
        assert (found.bundle / name).read_bytes() != (done.bundle / name).read_bytes()


@pytest.mark.slow
def test_the_held_out_rankers_answer_for_a_bundle_that_has_learned_the_test_window(
    runs: Path, events: pl.DataFrame, tiny_run: Run
) -> None:
    """And the same events give the same version."""
    old = Bundle(tiny_run.bundle)
    found = refresh(old, repeat(events, 10), runs)
    assert found.comparison.old_rankers == "held_out"
    assert "by the held-out rankers of the old" in found.sentence
    assert old.split_us < found.comparison.split_us < old.as_of_us
    shutil.rmtree(runs / ".stages")
    assert refresh(old, repeat(events, 10).to_pandas(), runs).bundle == found.bundle


@pytest.mark.slow
def test_a_worse_bundle_does_not_become_the_latest_unless_it_is_forced_to(
    runs: Path,
) -> None:
    old = Bundle(runs)
    given = as_recommended(old)
    found = refresh(old, given)
    assert found.comparison.is_worse
    assert found.comparison.old > 0.8
    assert not found.promoted
    assert find_bundle(runs) == old.path
    assert Bundle(found.bundle).parts == old.parts  # sealed, and kept
    assert f"worse: {old.version} stays" in found.sentence
    (runs / "latest").unlink()
    refresh(old, given)
    assert find_bundle(runs) == old.path
    forced = refresh(old, given, force=True)
    assert forced.promoted
    assert find_bundle(runs) == forced.bundle == found.bundle
    assert "worse, but promotion was forced" in forced.sentence


def test_events_must_be_later_than_those_of_the_bundle(runs: Path, events: pl.DataFrame) -> None:
    unknown = repeat(events, 31).with_columns(item_id=pl.lit("unheard-of"))
    early = events.head(1).with_columns(user_id=pl.lit("somebody"))
    given = pl.concat([events.tail(5), early, unknown.head(2)])
    with pytest.raises(DataError, match=r"got none: 5 are in the bundle, 1 are earlier, and 2 are"):
        refresh(runs, given)
    with pytest.raises(InvalidArgumentError, match="events must be"):
        refresh(runs, 7)  # type: ignore[arg-type]


def test_a_folder_in_which_nothing_could_stay_the_latest_is_refused(
    runs: Path, month: pl.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"out must have a latest bundle.*pass .*runs"):
        refresh(runs, month, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_bundle_and_one_without_events_are_refused(
    runs: Path, month: pl.DataFrame, tiny_run: Run
) -> None:
    with (runs / tiny_run.bundle.name / "items.parquet").open("ab") as file:
        file.write(b"!")
    with pytest.raises(BundleError, match=r"items\.parquet was changed"):
        refresh(runs, month)
    without = Bundle(tiny_run.bundle)
    without.parts = frozenset({"text"})
    with pytest.raises(MissingPartError, match="no 'ranking' part"):
        refresh(without, month)
