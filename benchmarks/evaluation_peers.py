"""Evaluate the rankings of ``benchmarks.evaluation`` by ranx or RecBole.

It is run by ``benchmarks.evaluation``, with the interpreter that has the library:
``PYTHON benchmarks/evaluation_peers.py ranx FOLDER``. It prints the library's version, the seconds
without those of the scorer, and the values, as JSON.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

K = 100
# Names of the same metrics here, in ranx and in RecBole. RecBole's MAP is divided by another
# number, min(k, answers), so it is computed for its time alone.
METRICS = {
    f"ndcg@{K}": (f"ndcg@{K}", f"ndcg@{K}"),
    f"recall@{K}": (f"recall@{K}", f"recall@{K}"),
    f"mrr@{K}": (f"mrr@{K}", f"mrr@{K}"),
    f"precision@{K}": (f"precision@{K}", f"precision@{K}"),
    f"hit_rate@{K}": (f"hit_rate@{K}", f"hit@{K}"),
    f"average_precision@{K}": (f"map@{K}", ""),
}


def evaluate_lists(folder: Path) -> dict[str, Any]:
    """Return what ranx says of ready lists; making its objects of them is not counted."""
    ranx = importlib.import_module("ranx")
    ranked = np.load(folder / "ranked.npy")
    wanted = [rows.tolist() for rows in _split(folder, "answers")]
    lists = [[(f"i{row}", float(K - n)) for n, row in enumerate(rows)] for rows in ranked.tolist()]
    qrels = ranx.Qrels({f"u{n}": {f"i{row}": 1 for row in rows} for n, rows in enumerate(wanted)})
    run = ranx.Run({f"u{n}": dict(rows) for n, rows in enumerate(lists)})
    names = [theirs for theirs, _ in METRICS.values()]
    ranx.evaluate(qrels, run, names)  # compiles
    start = time.process_time()
    found = ranx.evaluate(qrels, run, names)
    seconds = time.process_time() - start
    return {
        "version": version("ranx"),
        "seconds": seconds,
        "values": {ours: float(found[theirs]) for ours, (theirs, _) in METRICS.items()},
    }


def evaluate_scores(folder: Path, block: int) -> dict[str, Any]:
    """Return what RecBole's collector and metrics say of scores, block of users by block."""
    # RecBole 1.2.1 still uses a name that numpy has removed.
    np.float = float  # type: ignore[attr-defined]
    torch = importlib.import_module("torch")
    evaluator = importlib.import_module("recbole.evaluator")
    metrics = ["NDCG", "Recall", "MRR", "Precision", "Hit", "MAP"]
    config = {
        "metrics": metrics,
        "topk": [K],
        "device": "cpu",
        "eval_args": {"mode": "full"},
        "metric_decimal_place": 12,
    }
    collector, judge = evaluator.Collector(config), evaluator.Evaluator(config)
    users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
    taken, answers = _split(folder, "taken"), _split(folder, "answers")
    seconds = 0.0
    for first in range(0, len(users), block):
        some = slice(first, first + block)
        scores = torch.from_numpy(users[some] @ items.T)
        out, right = (_pairs(rows[some], torch.from_numpy) for rows in (taken, answers))
        start = time.process_time()  # RecBole's loader would have made the pairs before
        scores[out] = -np.inf
        collector.eval_batch_collect(scores, None, *right)
        seconds += time.process_time() - start
    start = time.process_time()
    found = judge.evaluate(collector.get_data_struct())
    seconds += time.process_time() - start
    return {
        "version": version("recbole"),
        "seconds": seconds,
        "values": {ours: float(found[theirs]) for ours, (_, theirs) in METRICS.items() if theirs},
    }


def _split(folder: Path, name: str) -> list[Any]:
    """Return the item rows of each user."""
    stored = np.load(folder / f"{name}.npz")
    return np.split(stored["rows"], np.cumsum(stored["counts"])[:-1])


def _pairs(rows: list[Any], convert: Callable[[Any], Any]) -> tuple[Any, Any]:
    users = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    return convert(users), convert(np.concatenate(rows))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, where = sys.argv[1], Path(sys.argv[2])
    answer = evaluate_lists(where) if name == "ranx" else evaluate_scores(where, int(sys.argv[3]))
    print(json.dumps(answer))
