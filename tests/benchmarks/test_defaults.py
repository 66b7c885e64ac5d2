from pathlib import Path

import pytest

from benchmarks.defaults import Figures, config_of, figures_of
from benchmarks.generated_logs import SPECS
from recsys.config import TrainConfig
from recsys.evaluation.bootstrap import Estimate
from recsys.evaluation.results import RankingTable, Role, SystemRow


def test_nothing_but_the_tables_the_scopes_and_the_name_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.defaults.tables_of", lambda name: tmp_path)
    default = TrainConfig()
    for name in (*SPECS, "online_retail"):
        config = config_of(name)
        assert config.name == name
        for section in ("split", "users", "ranker", "fusion", "text", "vision"):
            assert getattr(config, section) == getattr(default, section), section
    assert config_of("amazon_beauty").split.protocol == "leave_one_out"


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
