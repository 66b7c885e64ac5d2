"""Train the default configuration on logs that nobody tuned it for, beside every baseline.

Run from the repository's root: ``python -m benchmarks.defaults``, or with names of sets to measure
those alone. Nothing is set but the tables; published protocols are named where a set has one. The
figure of a set is NDCG@10 on all pairs over that of the best baseline on the same users.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generated_logs import SPECS, generate_log
from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import table, train_and_report
from recsys.config import DataConfig, EvaluationConfig, SplitConfig, TrainConfig
from recsys.evaluation.results import RankingTable

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


def ratio_to_best(one: RankingTable) -> float:
    """Return NDCG@10 of our system over that of the best baseline."""
    ndcg = {row.name: row.metrics["ndcg@10"].mean for row in one.systems}
    roles = {row.name: row.role for row in one.systems}
    best = max(value for name, value in ndcg.items() if roles[name] == "baseline")
    return next(ndcg[name] for name in ndcg if roles[name] == "ours") / best


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
        ratio = ratio_to_best(table(measured.report, "all"))
        print(f"defaults.{name}.ratio_to_best_baseline = {ratio:.3f} ({measured.seconds:.0f} s)")
        if not options.no_record:
            key = f"defaults.{name}.ratio_to_best_baseline"
            record("defaults", key, round(ratio, 4), "ratio", COMMAND)


if __name__ == "__main__":
    main()
