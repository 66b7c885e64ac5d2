"""Measure the generated shop: ranking beside baselines and ablations, cold items, live parity.

Run from the repository's root, after ``recsys demo`` has written its bundle to ``out/demo``:
``python -m benchmarks.shop``. It fails if another system's interval reaches that of the full model.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from recsys import Bundle, Recommender
from recsys.data.interactions import History
from recsys.data.timestamps import from_us
from recsys.evaluation.systems import OURS
from serving.client import AsyncClient, Event
from serving.testing import running_service

COMMAND = "python -m benchmarks.shop"
DEMO = Path("out/demo")
PARITY_USERS = 50
PARITY_CANDIDATES = 100


def main() -> None:
    """Record the figures of the demo's report, and compare a service's scores with offline ones."""
    report = json.loads((DEMO / "metrics.json").read_text())
    tables = {one["scope"]: one["systems"] for one in report["rankings"]}
    overlapping = _record_ranking(tables["all"])
    _record_cold(tables["cold"])
    gaps = asyncio.run(parity_gaps(Bundle(DEMO / "latest")))
    difference = max(gaps)
    print(f"parity: largest difference of {len(gaps):,} scores {difference:.2e}")
    record("parity", "parity.max_abs_diff", difference, "logit", COMMAND)
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
    ratio = recall[OURS] / recall["popularity"]
    record("shop", "shop.cold.recall@20.ratio_to_popularity", ratio, "ratio", COMMAND)


async def parity_gaps(bundle: Bundle) -> list[float]:
    """Return the difference of each score of a service from the same score offline.

    The events of some users are sent to the service under new user ids. It then ranks the same
    candidates at the same time as the recommender offline.
    """
    recommender = Recommender(bundle)
    interactions = bundle.interactions
    now = from_us(int(interactions.timestamps_us[-1]) + 1)
    generator = np.random.default_rng(0)
    counts = np.bincount(interactions.user_rows, minlength=interactions.n_users)
    users = generator.choice(np.flatnonzero((counts > 0) & (counts <= 100)), PARITY_USERS, False)
    gaps: list[float] = []
    async with running_service(bundle.path) as service, AsyncClient(service.address) as client:
        for user in users:
            history = recommender.history(interactions.user_ids[user])
            new_id = f"replayed-{user}"
            await client.record_events(_events(recommender, new_id, history))
            ids = generator.choice(
                recommender.catalogue.item_ids, PARITY_CANDIDATES, False
            ).tolist()
            offline = {one.item_id: one.score for one in recommender.rank(history, ids, now=now)}
            answer = await client.rank(new_id, ids, now=now)
            gaps += [abs(one.score - offline[one.item_id]) for one in answer.results]
    return gaps


def _events(recommender: Recommender, user_id: str, history: History) -> list[Event]:
    return [
        Event(
            user_id,
            recommender.catalogue.item_ids[row],
            recommender.kind_names[kind],
            timestamp=from_us(time_us),
        )
        for row, kind, time_us in zip(*(column.tolist() for column in history), strict=True)
    ]


if __name__ == "__main__":
    main()
