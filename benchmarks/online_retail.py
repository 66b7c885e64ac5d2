"""Train on Online Retail and record NDCG@10 and Recall@20, on all and on new pairs.

Run from the repository's root: ``python -m benchmarks.online_retail``. The figures are means of
three seeds, each trained separately. With the first seed, trees of either kind also rank alone, as
ablations of the choice among rankers; ``--alone`` measures these and no other seed. ``python -m
benchmarks.online_retail_baselines`` records the baselines of the same table.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import Measured, measure, metric, table, train_and_report
from recsys.config import TrainConfig, load_config
from recsys.evaluation.systems import OURS
from recsys.ranking.rankers import BEHAVIOUR_TREES, TREES

COMMAND = "python -m benchmarks.online_retail"
CONFIG, OUT = Path("configs/online_retail.toml"), Path("out/online-retail")
SEEDS = (0, 1, 2)
ALONE = {TREES: "lambdamart", BEHAVIOUR_TREES: "behaviour_trees"}  # names of the figures by kind


def figures_of(measured: Measured, name: str) -> Mapping[str, float]:
    """Print the tables of a run, and return the figures of this library by their names."""
    found = {}
    for scope in ("all", "new"):
        ranking = table(measured.report, scope)
        for row in ranking.systems:
            shown = {key: row.metrics[key] for key in ("ndcg@10", "recall@20")}
            print(name, scope, row.name, shown, flush=True)
        for key in ("ndcg@10", "recall@20"):
            found[f"{scope}.{key}"] = metric(ranking, OURS, key).mean
    return found


def with_ranker(config: TrainConfig, kind: str) -> TrainConfig:
    """Return the settings with one kind of ranker, and nothing to choose."""
    ranker = config.ranker.model_copy(update={"kind": kind})
    return config.model_copy(update={"ranker": ranker})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the tables and record the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--alone", nargs="+", choices=ALONE, help="measure only trees that rank alone"
    )
    options = parser.parse_args(arguments)
    imported("online-retail", "online-retail.csv.gz")
    if options.alone is None:
        measure_choice()
    for kind in options.alone or ALONE:
        config = load_config(CONFIG).model_copy(update={"seed": SEEDS[0]})
        alone = train_and_report(with_ranker(config, kind), OUT / f"seed-{SEEDS[0]}", resume=True)
        for name, value in figures_of(alone, kind).items():
            unit = name.partition(".")[2]
            record("online_retail", f"online_retail.{ALONE[kind]}.{name}", value, unit, COMMAND)


def measure_choice() -> None:
    """Train with each seed, and record means and standard deviations."""
    figures: dict[str, list[float]] = defaultdict(list)
    for seed in SEEDS:
        measured = measure(CONFIG, OUT / f"seed-{seed}", seed=seed)
        figures["train.seconds"].append(measured.seconds)
        for name, value in figures_of(measured, f"seed {seed}").items():
            figures[name].append(value)
    for name, values in figures.items():
        print(f"online_retail.{name} = {mean(values):.4f}, standard deviation {stdev(values):.4f}")
        unit = "s" if name == "train.seconds" else name.partition(".")[2]
        record("online_retail", f"online_retail.{name}", mean(values), unit, COMMAND)
        record("online_retail", f"online_retail.{name}.std", stdev(values), unit, COMMAND)


if __name__ == "__main__":
    main()
