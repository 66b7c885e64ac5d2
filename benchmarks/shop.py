"""Measure the generated shop: ranking beside baselines and ablations, and cold items.

Run from the repository's root, after ``recsys demo`` has written its bundle to ``out/demo``:
``python -m benchmarks.shop``. It fails if another system's interval reaches that of the full model.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import record
from recsys.evaluation.systems import OURS

COMMAND = "python -m benchmarks.shop"
DEMO = Path("out/demo")


def main() -> None:
    """Record the figures of the demo's report."""
    report = json.loads((DEMO / "metrics.json").read_text())
    tables = {one["scope"]: one["systems"] for one in report["rankings"]}
    overlapping = _record_ranking(tables["all"])
    _record_cold(tables["cold"])
    if overlapping:
        sys.exit(f"NDCG@10 intervals must not overlap, ours does with {', '.join(overlapping)}")


def _record_ranking(systems: list[dict[str, Any]]) -> list[str]:
    """Record NDCG@10 of every system, and return those whose interval reaches that of ours."""
    ndcg = {one["name"]: one["metrics"]["ndcg@10"] for one in systems}
    roles = {one["name"]: one["role"] for one in systems}
    for name, estimate in ndcg.items():
        print(f"{roles[name]:9} {name:30} {estimate}")
        key = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
        record("shop", f"shop.{key}.ndcg@10", estimate["mean"], "ndcg@10", COMMAND)
    best = max(one["mean"] for name, one in ndcg.items() if roles[name] == "baseline")
    ratio = ndcg[OURS]["mean"] / best
    record("shop", "shop.ndcg@10.ratio_to_best_baseline", ratio, "ratio", COMMAND)
    ours = ndcg.pop(OURS)
    return [name for name, one in ndcg.items() if one["high"] >= ours["low"]]


def _record_cold(systems: list[dict[str, Any]]) -> None:
    recall = {one["name"]: one["metrics"]["recall@20"]["mean"] for one in systems}
    print("cold recall@20", recall)
    for name in ("popularity", "content-kNN"):
        key = f"shop.cold.recall@20.ratio_to_{name.lower().replace('-', '_')}"
        record("shop", key, recall[OURS] / recall[name], "ratio", COMMAND)


if __name__ == "__main__":
    main()
