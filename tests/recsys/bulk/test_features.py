from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.answers import Event
from recsys.bulk import Featured, FeatureOptions, Shard, build_features
from recsys.bulk.features import PairFeatures
from recsys.bundle import Bundle
from recsys.data.arrays import Floats
from recsys.data.timestamps import from_us, to_us
from recsys.errors import DataError, LeakageError, MissingPartError, SchemaError
from recsys.ranking.features import FEATURES
from recsys.recommender import Recommender

NAMES = [*FEATURES]


class OutageError(Exception):
    """The machine went away."""


@pytest.fixture(scope="module")
def known(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


@pytest.fixture(scope="module")
def end(known: Bundle) -> datetime:
    """The moment as of which the bundle knows the items."""
    assert known.as_of_us is not None
    return from_us(known.as_of_us)


def build(bundle: Bundle, pairs: pl.DataFrame, out: Path, **options: Any) -> Featured:
    path = out.parent / f"{out.name}-pairs.parquet"
    pairs.write_parquet(path)
    return build_features(bundle, path, out, FeatureOptions(**options))


def read(done: Featured) -> pl.DataFrame:
    return pl.read_parquet(done.files)


def some_pairs(bundle: Bundle, moments: Sequence[datetime], *, seed: int = 0) -> pl.DataFrame:
    """Pairs of many users, some of whom nobody knows, at some moments, in no order."""
    rng = np.random.default_rng(seed)
    users = [*bundle.interactions.user_ids[:12], "nobody"]
    return pl.DataFrame(
        {
            "user_id": [users[n] for n in rng.integers(0, len(users), 60)],
            "item_id": [bundle.items["item_id"][int(n)] for n in rng.integers(0, 40, 60)],
            "timestamp": [moments[n] for n in rng.integers(0, len(moments), 60)],
        }
    )


def read_by_ranker(recommender: Recommender, pair: dict[str, Any]) -> Floats:
    """Return the features that the ranker reads of an item when it ranks the whole catalogue."""
    history = recommender.history(pair["user_id"])
    count = len(recommender.catalogue)
    best = recommender.ranker.best(
        [history],
        count,
        now_us=to_us("now", pair["timestamp"]),
        mask=np.ones(count, dtype=np.bool_),
        exclude_seen=False,
    )
    place = best.rows[0].tolist().index(int(recommender.catalogue.rows([pair["item_id"]])[0]))
    found: Floats = best.features[0, place].numpy()
    return found


def test_a_pair_has_the_features_that_the_ranker_reads_of_it(
    known: Bundle, end: datetime, tmp_path: Path
) -> None:
    moments = [end, end + timedelta(hours=5), end + timedelta(days=40)]
    pairs = some_pairs(known, moments)
    found = read(build(known, pairs, tmp_path / "out"))
    assert found.columns == [*pairs.columns, *NAMES]
    assert_frame_equal(found.select(pairs.columns), pairs, check_dtypes=False)
    recommender = Recommender(known)
    for pair, values in zip(
        pairs.iter_rows(named=True), found.select(NAMES).to_numpy(), strict=True
    ):
        np.testing.assert_allclose(values, read_by_ranker(recommender, pair), atol=1e-6)


def test_as_of_the_split_they_are_those_of_offline_evaluation(
    known: Bundle, tmp_path: Path
) -> None:
    assert isinstance(known.split_us, int)
    split = from_us(known.split_us)
    pairs = some_pairs(known, [split])
    found = read(build(known, pairs, tmp_path / "out.parquet", as_of=split))
    recommender = Recommender(known, as_of=known.split_us)
    for pair, values in zip(
        pairs.iter_rows(named=True), found.select(NAMES).to_numpy(), strict=True
    ):
        np.testing.assert_allclose(values, read_by_ranker(recommender, pair), atol=1e-6)
    again = read(build(known, pairs.drop("timestamp"), tmp_path / "untimed", as_of=split))
    assert_frame_equal(again, found)


def test_parts_and_blocks_of_any_size_have_the_same_numbers(
    known: Bundle, end: datetime, tmp_path: Path
) -> None:
    pairs = some_pairs(known, [end, end + timedelta(days=3)])
    whole = read(build(known, pairs, tmp_path / "whole"))
    for size in (1, 7, 59):
        parts = build(known, pairs, tmp_path / str(size), rows_per_part=size)
        assert len(parts.files) == -(-60 // size)
        assert_frame_equal(read(parts), whole, rel_tol=0, abs_tol=1e-6)
    features = PairFeatures(known)
    users = known.interactions.user_ids[:5]
    histories = [Recommender(known).history(user) for user in users]
    rows = [np.arange(3 + n) for n in range(5)]
    now_us = np.full(5, to_us("now", end))
    blocks = [
        features.compute(histories, now_us, rows, block_size=size).numpy() for size in (1, 2, 5)
    ]
    for block in blocks[1:]:
        np.testing.assert_allclose(block, blocks[0], atol=1e-6)


def test_a_history_ends_before_its_pair(known: Bundle, end: datetime, tmp_path: Path) -> None:
    user, (item, other) = known.interactions.user_ids[0], known.items["item_id"][:2]
    bought_at = end + timedelta(days=1)
    more = known.events.clear().select("user_id", "item_id", "kind", "timestamp")
    row = {"user_id": [user], "item_id": [item], "kind": ["purchase"], "timestamp": [bought_at]}
    more = pl.concat([known.events.select(more.columns), pl.DataFrame(row, schema=more.schema)])
    more.write_parquet(tmp_path / "events.parquet")
    times = [bought_at, bought_at + timedelta(seconds=1)]
    pairs = pl.DataFrame({"user_id": user, "item_id": [item] * 2, "timestamp": times})
    found = read(build(known, pairs, tmp_path / "out", events=tmp_path / "events.parquet"))
    before, after = found["own_purchases"].to_list()
    assert after > before
    without = read(build(known, pairs[:1], tmp_path / "without"))
    assert_frame_equal(found[:1], without)
    live = Recommender(known)
    history = live.history(user, [Event(user, item, "purchase", bought_at)])
    now_us = np.array([to_us("now", times[1])])
    wanted = PairFeatures(known).compute([history], now_us, [live.catalogue.rows([item, other])])
    np.testing.assert_allclose(found.select(NAMES).to_numpy()[1], wanted[0].numpy(), atol=1e-6)


def test_an_interrupted_run_goes_on_and_shards_share_the_parts(
    known: Bundle, end: datetime, tmp_path: Path
) -> None:
    pairs = some_pairs(known, [end])
    whole = read(build(known, pairs, tmp_path / "whole", rows_per_part=20))

    def stop(_: str, done: int, total: int) -> None:
        assert total == 60
        if done >= 20:
            raise OutageError

    path, options = tmp_path / "whole-pairs.parquet", FeatureOptions(rows_per_part=20)
    with pytest.raises(OutageError):
        build_features(known, path, tmp_path / "out", options, progress=stop)
    kept = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    resumed = build_features(known, path, tmp_path / "out", options)
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == kept
    assert_frame_equal(read(resumed), whole)
    shards = [
        build_features(
            known, path, tmp_path / "shared", FeatureOptions(rows_per_part=20, shard=Shard(n, 2))
        )
        for n in range(2)
    ]
    assert [one.n_pairs for one in shards] == [40, 20]
    assert_frame_equal(pl.read_parquet(tmp_path / "shared" / "part-*.parquet"), whole)


def test_bad_rows_are_counted_and_left_out(known: Bundle, end: datetime, tmp_path: Path) -> None:
    item = known.items["item_id"][0]
    pairs = pl.DataFrame(
        {
            "user_id": ["a", None, "b", "c"],
            "item_id": [item, item, "not sold", item],
            "timestamp": [end.isoformat(), None, None, "yesterday"],
        }
    )
    done = build(known, pairs, tmp_path / "out.parquet", rows_per_part=2)
    assert (done.n_rows, done.n_pairs) == (4, 1)
    assert done.failures == {
        "item_id|known": 1,
        "timestamp|unreadable": 1,
        "user_id|nullability": 1,
    }
    assert len(done.lines()) == 3
    assert read(done)["user_id"].to_list() == ["a"]
    assert pl.read_parquet(tmp_path / "out.quarantine.parquet")["row"].to_list() == [2, 3, 4]
    with pytest.raises(DataError, match="table pairs must have a valid row, got none"):
        build(known, pairs[1:], tmp_path / "none")


def test_what_would_look_ahead_is_refused(known: Bundle, end: datetime, tmp_path: Path) -> None:
    assert isinstance(known.split_us, int)
    split = from_us(known.split_us)
    pairs = some_pairs(known, [end, end - timedelta(days=1)])
    with pytest.raises(LeakageError, match="every pair must be at or after"):
        build(known, pairs, tmp_path / "out")
    assert build(known, pairs, tmp_path / "split", as_of=split).n_pairs == 60
    with pytest.raises(LeakageError, match="as_of must not be before the split of the bundle"):
        build(known, pairs, tmp_path / "early", as_of=split - timedelta(days=1))
    with pytest.raises(ValueError, match="as_of must have a time zone"):
        FeatureOptions(as_of=datetime(2026, 1, 1))
    with pytest.raises(DataError, match="was begun with as_of_us"):
        build(known, pairs, tmp_path / "split")


def test_a_bundle_without_events_and_a_table_without_users_are_refused(
    bundle: Bundle, known: Bundle, tmp_path: Path
) -> None:
    pairs = pl.DataFrame({"user_id": ["a"], "item_id": ["a"]})
    with pytest.raises(MissingPartError, match="has no 'ranking' part"):
        build(bundle, pairs, tmp_path / "out")
    with pytest.raises(SchemaError, match="column 'user_id' is missing"):
        build(known, pairs.drop("user_id"), tmp_path / "other")
