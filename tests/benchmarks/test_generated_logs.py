from pathlib import Path

import polars as pl
import pytest

from benchmarks.generated_logs import SPECS, LogSpec, generate_log
from recsys.data.dataset import load_dataset
from recsys.data.interactions import MICROSECONDS_PER_DAY, build_interactions
from recsys.data.tables import Tables
from recsys.data.timestamps import from_us
from recsys.ranking.tempo import measure_tempo

END = from_us(2**51)


def small(name: str, **changes: object) -> LogSpec:
    return SPECS[name]._replace(n_users=30, n_items=60, **changes)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    for name in SPECS:
        visits = (20, 40) if name == "loyal" else SPECS[name].visits
        monkeypatch.setitem(SPECS, name, small(name, visits=visits))
    return {name: generate_log(name, tmp_path / name) for name in SPECS}


@pytest.mark.parametrize("name", SPECS)
def test_a_log_is_whole_and_nobody_meets_an_item_before_it_appears(
    logs: dict[str, Path], name: str
) -> None:
    folder = logs[name]
    dataset = load_dataset(
        Tables(str(folder / "items.parquet"), str(folder / "events.parquet")), now=END
    )
    assert not any(report.counts() for report in dataset.quarantine.reports)
    assert dataset.events is not None
    assert dataset.events["kind"].unique().to_list() == [SPECS[name].kind]
    met = dataset.events.join(dataset.items, on="item_id")
    assert len(met) == len(pl.read_parquet(folder / "events.parquet"))
    assert (met["timestamp"] >= met["created_at"]).all()


def test_the_logs_differ_in_tempo(logs: dict[str, Path]) -> None:
    pauses, spans = {}, {}
    for name, folder in logs.items():
        events = pl.read_parquet(folder / "events.parquet").with_columns(quantity=pl.lit(1.0))
        interactions = build_interactions(
            events, pl.read_parquet(folder / "items.parquet")["item_id"].to_list()
        )
        pauses[name] = measure_tempo(interactions, 30.0).pause_days
        own = [history.timestamps_us for history in interactions.histories()]
        spans[name] = max(int(times[-1] - times[0]) for times in own) / MICROSECONDS_PER_DAY
    assert pauses["visits"] == 30.0  # nobody comes twice, so the window stands in
    assert spans["visits"] < 1
    assert spans["likes"] < 13 < 100 < spans["loyal"]
    assert pauses["likes"] < pauses["loyal"]


def test_a_seed_gives_the_same_log_again(logs: dict[str, Path], tmp_path: Path) -> None:
    again = generate_log("likes", tmp_path / "again")
    other = generate_log("likes", tmp_path / "other", seed=1)
    events = [pl.read_parquet(one / "events.parquet") for one in (logs["likes"], again, other)]
    assert events[0].equals(events[1])
    assert not events[0].equals(events[2])
