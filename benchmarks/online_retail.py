"""Train on Online Retail and record NDCG@10 and Recall@20 on all and on new pairs.

Run from the repository's root: ``python -m benchmarks.online_retail``. The baselines of the same
table come from ``python -m benchmarks.online_retail_baselines``.
"""

from pathlib import Path

from benchmarks.published import imported
from benchmarks.record import record
from benchmarks.training_run import measure, metric, table
from recsys.scorecard import OURS

COMMAND = "python -m benchmarks.online_retail"


def main() -> None:
    """Train, print the tables and record the figures."""
    imported("online-retail", "online-retail.csv.gz")
    measured = measure(Path("configs/online_retail.toml"), Path("out/online-retail"))
    record("online_retail", "online_retail.train.seconds", measured.seconds, "s", COMMAND)
    for scope in ("all", "new"):
        ranking = table(measured.report, scope)
        for row in ranking.systems:
            print(scope, row.name, {name: row.metrics[name] for name in ("ndcg@10", "recall@20")})
        for name in ("ndcg@10", "recall@20"):
            value = metric(ranking, OURS, name).mean
            record("online_retail", f"online_retail.{scope}.{name}", value, name, COMMAND)


if __name__ == "__main__":
    main()
