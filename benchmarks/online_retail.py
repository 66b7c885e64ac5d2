"""Train on Online Retail and record NDCG@10 and Recall@20, on all and on new pairs.

Run from the repository's root: ``python -m benchmarks.online_retail``. The figures are means of
three seeds, each trained separately. ``python -m benchmarks.online_retail_baselines`` records the
baselines of the same table.
"""

from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import measure, metric, table
from recsys.evaluation.systems import OURS

COMMAND = "python -m benchmarks.online_retail"
SEEDS = (0, 1, 2)


def main() -> None:
    """Train, print the tables and record the figures."""
    imported("online-retail", "online-retail.csv.gz")
    config, out = Path("configs/online_retail.toml"), Path("out/online-retail")
    figures: dict[str, list[float]] = defaultdict(list)
    for seed in SEEDS:
        measured = measure(config, out / f"seed-{seed}", seed=seed)
        figures["train.seconds"].append(measured.seconds)
        for scope in ("all", "new"):
            ranking = table(measured.report, scope)
            for row in ranking.systems:
                shown = {name: row.metrics[name] for name in ("ndcg@10", "recall@20")}
                print(f"seed {seed}", scope, row.name, shown, flush=True)
            for name in ("ndcg@10", "recall@20"):
                figures[f"{scope}.{name}"].append(metric(ranking, OURS, name).mean)
    for name, values in figures.items():
        print(f"online_retail.{name} = {mean(values):.4f}, standard deviation {stdev(values):.4f}")
        unit = "s" if name == "train.seconds" else name.partition(".")[2]
        record("online_retail", f"online_retail.{name}", mean(values), unit, COMMAND)


if __name__ == "__main__":
    main()
