"""Train on Online Retail and record NDCG@10 and Recall@20, on all and on new pairs.

Run from the repository's root: ``python -m benchmarks.online_retail``. The figures are means of
three seeds, each trained separately. With the first seed, trees alone also rank, as an ablation of
the choice among rankers. ``python -m benchmarks.online_retail_baselines`` records the baselines of
the same table.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import Measured, measure, metric, table, train_and_report
from recsys.config import TrainConfig, load_config
from recsys.evaluation.systems import OURS
from recsys.ranking.rankers import TREES

COMMAND = "python -m benchmarks.online_retail"
CONFIG, OUT = Path("configs/online_retail.toml"), Path("out/online-retail")
SEEDS = (0, 1, 2)


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


def with_trees(config: TrainConfig) -> TrainConfig:
    """Return the settings with trees as the ranker, and nothing to choose."""
    ranker = config.ranker.model_copy(update={"kind": TREES})
    return config.model_copy(update={"ranker": ranker})


def main() -> None:
    """Train, print the tables and record the figures."""
    imported("online-retail", "online-retail.csv.gz")
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
    config = with_trees(load_config(CONFIG).model_copy(update={"seed": SEEDS[0]}))
    trees = train_and_report(config, OUT / f"seed-{SEEDS[0]}", resume=True)
    for name, value in figures_of(trees, "trees").items():
        unit = name.partition(".")[2]
        record("online_retail", f"online_retail.lambdamart.{name}", value, unit, COMMAND)


if __name__ == "__main__":
    main()
