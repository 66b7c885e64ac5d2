"""Train the default configuration on logs that nobody tuned it for, beside every baseline.

Run from the repository's root: ``python -m benchmarks.defaults``, or with names of sets to measure
those alone. Nothing is set but the tables; published protocols are named where a set has one. The
figure of a set is NDCG@10 on all pairs over that of the best baseline on the same users.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.generated_logs import SPECS, generate_log
from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import metric, table, train_and_report
from recsys.config import DataConfig, EvaluationConfig, SplitConfig, TrainConfig
from recsys.evaluation.results import RankingTable
from recsys.evaluation.systems import OURS

COMMAND = "python -m benchmarks.defaults"
OUT = Path("out/defaults")
PUBLISHED = {
    "online_retail": ("online-retail", "online-retail.csv.gz"),
    "amazon_beauty": ("amazon-beauty", "amazon-beauty"),
}
PROTOCOLS = {"amazon_beauty": SplitConfig(protocol="leave_one_out")}


def tables_of(name: str) -> Path:
    """Return the folder with the tables of a set, made if need be."""
    if name in SPECS:
        return generate_log(name, OUT / name / "tables")
    return imported(*PUBLISHED[name])


def config_of(name: str, *, seed: int = 0) -> TrainConfig:
    """Return the default configuration on the tables of a set."""
    folder = tables_of(name).resolve()
    data = DataConfig(items=f"{folder}/items.parquet", events=f"{folder}/events.parquet")
    return TrainConfig(
        name=name,
        seed=seed,
        data=data,
        split=PROTOCOLS.get(name, SplitConfig()),
        evaluation=EvaluationConfig(scopes=("all", "new"), ablations=False),
    )


class Figures(NamedTuple):
    """NDCG@10 of our system and of the best baseline, on the same users."""

    ours: float
    best_baseline: float

    @property
    def ratio(self) -> float:
        """Ours over the best baseline."""
        return self.ours / self.best_baseline


def figures_of(one: RankingTable) -> Figures:
    """Return the figures of a table."""
    ndcg = [(row.role, row.metrics["ndcg@10"].mean) for row in one.systems]
    return Figures(
        next(mean for role, mean in ndcg if role == "ours"),
        max(mean for role, mean in ndcg if role == "baseline"),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sets, print their tables and record the ratios."""
    every = [*PUBLISHED, *SPECS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sets", nargs="*", choices=[*every, []], help="sets to measure; all if none"
    )
    parser.add_argument("--no-record", action="store_true", help="only print")
    options = parser.parse_args(arguments)
    for name in options.sets or every:
        measured = train_and_report(config_of(name), OUT / name / "run")
        for scope in ("all", "new"):
            for row in table(measured.report, scope).systems:
                shown = {key: row.metrics[key] for key in ("ndcg@10", "recall@20")}
                print(name, scope, row.role, row.name, shown, flush=True)
        figures = figures_of(table(measured.report, "all"))
        if name == "amazon_beauty" and not options.no_record:
            _record_beauty(table(measured.report, "all"))
        print(
            f"{name}: {figures}, ratio {figures.ratio:.3f} ({measured.seconds:.0f} s)", flush=True
        )
        if not options.no_record:
            _record(name, figures)


def _record(name: str, figures: Figures) -> None:
    again = f"{COMMAND} {name}"
    values = {
        "ndcg@10": figures.ours,
        "best_baseline.ndcg@10": figures.best_baseline,
        "ratio_to_best_baseline": figures.ratio,
    }
    for key, value in values.items():
        unit = "ratio" if key.startswith("ratio") else "ndcg@10"
        record("defaults", f"defaults.{name}.{key}", round(value, 4), unit, again)


def _record_beauty(one: RankingTable) -> None:
    """Record the figures under the names of the published tables."""
    for name, key in (("hr@10", "hit_rate@10"), ("ndcg@10", "ndcg@10")):
        value = metric(one, OURS, key).mean
        record("beauty", f"beauty.{name}", round(value, 4), key, f"{COMMAND} amazon_beauty")


if __name__ == "__main__":
    main()
