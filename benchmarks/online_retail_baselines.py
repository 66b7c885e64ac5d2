"""Measure every baseline on Online Retail and compare it with its reference figures.

Run from the repository's root: ``python -m benchmarks.online_retail_baselines``. It reads
``online-retail.csv.gz`` from the folder ``$RECSYS_DATA`` (default ``../shared/data``), takes about
half a minute, and fails if a figure is more than .01 away from its reference.

The references leave some settings open. These reproduce them: kNN uses the neighbours of the
candidate, with a cosine shrunk by 10 users. iALS weighs a bought pair 10 times and has a ridge of
10. Own purchases count order lines, times 2^(-days since the last / 60), and ties are broken by
popularity.
"""

import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.record import record
from recsys.data.dataset import load_dataset
from recsys.data.interactions import Interactions, build_interactions
from recsys.data.sources.registry import import_source
from recsys.data.splits import split_by_time
from recsys.data.tables import Tables
from recsys.evaluation.protocol import SystemResult, evaluate
from recsys.evaluation.queries import Scope, build_queries
from recsys.ranking.baselines import (
    EASE,
    IALS,
    Baseline,
    ItemKNN,
    OwnPurchases,
    Popularity,
    RecentPopularity,
)

COMMAND = "python -m benchmarks.online_retail_baselines"
SPLIT_US = int(datetime(2011, 11, 9, tzinfo=UTC).timestamp() * 1_000_000)
TOLERANCE = 0.01
METRICS = ("ndcg@10", "recall@20")
SCOPES: tuple[Scope, ...] = ("all", "new")

BASELINES: dict[str, Baseline] = {
    "popularity": Popularity(),
    "recent_popularity": RecentPopularity(days=30),
    "item_knn": ItemKNN(20),
    "ials": IALS(64),
    "ease": EASE(200),
    "own_purchases": OwnPurchases(half_life_days=60),
}
# NDCG@10 and Recall@20 in the scope "all", then in "new".
REFERENCES: dict[str, tuple[float, ...]] = {
    "popularity": (0.081, 0.061, 0.034, 0.037),
    "recent_popularity": (0.143, 0.092, 0.082, 0.076),
    "item_knn": (0.191, 0.143, 0.085, 0.094),
    "ials": (0.235, 0.197, 0.083, 0.088),
    "ease": (0.265, 0.202, 0.100, 0.105),
    "own_purchases": (0.345, 0.258),
}


def read_purchases(source: Path) -> Interactions:
    """Return the purchases of the published table."""
    with tempfile.TemporaryDirectory() as folder:
        tables = import_source("online-retail", source, Path(folder) / "online-retail")
        dataset = load_dataset(Tables(tables.items, tables.events), now=datetime.now(UTC))
    if dataset.events is None:
        raise SystemExit(f"{source} must hold purchases, got none")
    return build_interactions(dataset.events, dataset.items["item_id"].to_list())


def score(purchases: Interactions) -> dict[str, list[SystemResult]]:
    """Return the results of each baseline in the scope "all" and then in "new"."""
    train, test = split_by_time(purchases, SPLIT_US)
    queries_of = [build_queries(train, test, now_us=SPLIT_US, scope=scope) for scope in SCOPES]
    results = {}
    for key, baseline in BASELINES.items():
        start = time.perf_counter()
        baseline.fit(train, now_us=SPLIT_US)
        # Own purchases cannot rank items that the user has never bought.
        asked = queries_of[: len(REFERENCES[key]) // len(METRICS)]
        results[key] = [evaluate(baseline.name, baseline.scores, queries) for queries in asked]
        print(f"{baseline.name}: {time.perf_counter() - start:.1f} s")
    return results


def main() -> None:
    """Measure, record and print everything; fail if a figure is far from its reference."""
    data = Path(os.environ.get("RECSYS_DATA", "../shared/data"))
    results = score(read_purchases(data / "online-retail.csv.gz"))
    off = []
    print(f"\n{'':20}{'':5}{'':11}{'mean':>7} {'95 % interval':>16}{'reference':>11}{'users':>7}")
    for key, by_scope in results.items():
        found = [(result, metric) for result in by_scope for metric in METRICS]
        for (result, metric), reference in zip(found, REFERENCES[key], strict=True):
            name = f"online_retail.{key}.{result.scope}.{metric}"
            mean, low, high = result.estimates[metric]
            record("online_retail", name, round(mean, 5), metric.partition("@")[0], COMMAND)
            if abs(mean - reference) > TOLERANCE:
                off.append(f"{name} must be within {TOLERANCE} of {reference}, got {mean:.4f}")
            print(
                f"{key:20}{result.scope:5}{metric:11}{mean:7.4f} [{low:6.4f}, {high:6.4f}]"
                f"{reference:11.3f}{len(result.user_rows):7,}"
            )
    if off:
        sys.exit("\n".join(off))


if __name__ == "__main__":
    main()
