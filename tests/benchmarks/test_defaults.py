from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from benchmarks.defaults import (
    OTHER_TITLES,
    Figures,
    config_of,
    figures_of,
    gain_of_titles,
    with_other_titles,
)
from benchmarks.generated_logs import SPECS
from benchmarks.training_run import table, train_and_report
from recsys.config import TrainConfig
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.results import RankingTable, Role, SystemRow


def test_nothing_but_the_tables_the_scopes_and_the_name_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.defaults.tables_of", lambda name: tmp_path)
    default = TrainConfig()
    for name in (*SPECS, "online_retail", "shop"):
        config = config_of(name)
        assert config.name == name
        for section in ("split", "users", "ranker", "fusion", "text", "vision"):
            assert getattr(config, section) == getattr(default, section), section
    assert config_of("shop").data.photos, "the shop with pictures brings its photos, too"
    assert config_of("amazon_beauty").split.protocol == "leave_one_out"
    assert config_of("amazon_beauty_new_users").split.protocol == "user_fold"


@pytest.fixture
def shop(tmp_path: Path) -> TrainConfig:
    """A shop of 12 mugs whose titles name them, and 30 people who take every second one."""
    names = [f"mug {n}" for n in range(12)]
    items = pl.DataFrame({"item_id": [f"m{n}" for n in range(12)], "title": names})
    items.with_columns(price=pl.int_range(12).cast(pl.Float64)).write_parquet(
        tmp_path / "items.parquet"
    )
    start = datetime(2025, 1, 6, tzinfo=UTC)
    rows = [
        (f"u{user}", f"m{(user + 2 * visit) % 12}", start + timedelta(visit, user))
        for user in range(30)
        for visit in range(10)
    ]
    events = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    events.with_columns(kind=pl.lit("purchase")).write_parquet(tmp_path / "events.parquet")
    return TrainConfig.model_validate(
        {
            "device": "cpu",
            "data": {one: str(tmp_path / f"{one}.parquet") for one in ("items", "events")},
            "split": {"protocol": "user_fold", "folds": 3, "n_cuts": 2},
            "text": {"hidden": 16, "vocab_size": 300, "epochs": 1},
            "fusion": {"dim": 8, "hidden": 8, "epochs": 1},
            "users": {"width": 8, "heads": 1, "epochs": 1},
            "ranker": {"kind": "trees", "trees": {"trees": 5, "min_candidates": 5}},
            "evaluation": {"ablations": False, "scopes": ["all"]},
        }
    )


def test_every_title_goes_to_another_item_and_nothing_else_moves(
    shop: TrainConfig, tmp_path: Path
) -> None:
    other = with_other_titles(shop, tmp_path / "other")
    own, changed = (pl.read_parquet(str(one.data.items)) for one in (shop, other))
    assert own.drop("title").equals(changed.drop("title"))
    assert sorted(own["title"]) == sorted(changed["title"])
    assert (own["title"] != changed["title"]).sum() > 6
    assert other.model_copy(update={"data": shop.data}) == shop


@pytest.mark.slow
def test_the_gain_of_titles_is_of_the_same_users(shop: TrainConfig, tmp_path: Path) -> None:
    measured = train_and_report(shop, tmp_path / "run")
    found = gain_of_titles(measured, shop, tmp_path / "other_titles")
    ours, other = found.systems[0], next(row for row in found.systems if row.name == OTHER_TITLES)
    gain = ours.metrics["ndcg@10"].mean - other.metrics["ndcg@10"].mean
    assert other.behind["ndcg@10"].mean == pytest.approx(gain)
    assert found.n_users == table(measured.report, "all").n_users


def test_ours_is_compared_with_the_best_baseline_only() -> None:
    def row(role: Role, name: str, mean: float) -> SystemRow:
        return SystemRow(name, role, {"ndcg@10": Estimate(mean, mean, mean)}, {}, {})

    systems = [
        row("ours", "vitrine", 0.3),
        row("ablation", "text-only", 0.9),
        row("baseline", "EASE", 0.2),
        row("baseline", "popularity", 0.1),
    ]
    table = RankingTable("all", 10, 10, systems)
    figures = figures_of(table)
    assert figures == Figures(0.3, 0.2)
    assert figures.ratio == pytest.approx(1.5)
