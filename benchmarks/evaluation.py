"""Time the evaluation of a large shop, beside ranx and RecBole: 20,000 users, 100,000 items.

Run from the repository's root: ``python -m benchmarks.evaluation --python PYTHON``, with an
interpreter that has ranx and RecBole (see ``benchmarks/peers.py``). Users, items and events are
random. Seconds are those of the processor, so that other programs do not count, on as many threads
for all. The time of the scorers is counted for nobody.

Two systems tie many scores, which takes longer: one scores alike for everybody, one scores all
items alike but a few. A third has vectors of users and items. Its scores are also ranked and judged
by RecBole, and its finished lists judged by ranx; the values must agree. Both leave out what we
compute besides: the area under the curve of all items, and bootstrap intervals.

Memory is that of a process of its own, for 20,000 users and for a million. Its system scores alike
for everybody and remembers nobody, so that what grows is of the evaluation. ``--memory`` measures
this alone, and needs no other library.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.evaluation_peers import K
from benchmarks.peers import add_python_option, check_installed, run_peer
from benchmarks.record import record
from recsys.data.arrays import Floats, Ints
from recsys.evaluation.facts import ItemFacts
from recsys.evaluation.protocol import (
    SCORES_AT_ONCE,
    Scorer,
    SystemResult,
    rank_queries,
    score_ranking,
)
from recsys.evaluation.queries import ItemLists, Queries
from recsys.evaluation.results import Role
from recsys.evaluation.tables import ranking_table

COMMAND = "python -m benchmarks.evaluation --python PYTHON"
MEMORY = "python -m benchmarks.evaluation --memory"
N_USERS, MANY_USERS, N_ITEMS, DIM = 20_000, 1_000_000, 100_000, 64
EARLIER, ANSWERS = 20, 6  # items of each user whose memory is measured
TOLERANCE = 1e-6


class Log(NamedTuple):
    """Vectors of users (U, D) and items (N, D), and the queries that they answer."""

    users: Floats
    items: Floats
    queries: Queries

    def score(self, user_rows: Ints) -> Floats:
        """Return the scores of all items for some users (B, N)."""
        return self.users[user_rows] @ self.items.T


class Timed(NamedTuple):
    """A system's metrics, the seconds of its ranking, and of judging the finished lists."""

    result: SystemResult
    ranking: float
    judging: float


def build_log(generator: np.random.Generator, n_users: int, n_items: int) -> Log:
    """Return users with about 20 earlier items, and 6 answers of which 2 have high scores."""
    users = generator.normal(size=(n_users, DIM)).astype(np.float32)
    items = generator.normal(size=(n_items, DIM)).astype(np.float32)
    some = generator.choice(n_items, min(2_000, n_items), replace=False)
    vectors_of_some, taken, answers = items[some], [], []
    for vector in users:
        liked = some[np.argpartition(vectors_of_some @ vector, -2)[-2:]]
        out = np.unique(generator.integers(0, n_items, 20))
        taken.append(np.setdiff1d(out, liked))
        right = np.union1d(liked, generator.integers(0, n_items, 4))
        answers.append(np.setdiff1d(right, taken[-1], assume_unique=True))
    on_offer = np.ones(n_items, dtype=np.bool_)
    return Log(users, items, Queries("new", 0, np.arange(n_users), answers, taken, on_offer))


def build_scorers(log: Log, generator: np.random.Generator) -> dict[str, Scorer]:
    """Return the scorers by name."""
    n_users, n_items = len(log.users), len(log.items)
    popular = generator.zipf(1.5, n_items).clip(max=n_users).astype(np.float32)
    own = generator.integers(0, n_items, size=(n_users, 10))

    def few(user_rows: Ints) -> Floats:
        scores = np.zeros((len(user_rows), n_items), dtype=np.float32)
        np.put_along_axis(scores, own[user_rows], np.float32(1), axis=1)
        return scores

    return {
        "vectors": log.score,
        "popularity": lambda user_rows: np.tile(popular, (len(user_rows), 1)),
        "few": few,
    }


def build_queries(generator: np.random.Generator, n_users: int, n_items: int) -> Queries:
    """Return queries of users with 20 earlier items each, and 6 answers among other items."""
    rows = generator.integers(1, n_items // (EARLIER + ANSWERS), (n_users, EARLIER + ANSWERS))
    np.cumsum(rows, axis=1, out=rows)  # distinct and ascending
    columns = np.sort(generator.permutation(EARLIER + ANSWERS)[:ANSWERS])
    answers, taken = rows[:, columns], np.delete(rows, columns, axis=1)
    on_offer = np.ones(n_items, dtype=np.bool_)
    lists = [ItemLists(one.ravel(), _ends(one)) for one in (answers, taken)]
    return Queries("new", 0, np.arange(n_users), lists[0], lists[1], on_offer)


def _ends(rows: Ints) -> Ints:
    """Return where each user's rows end in the flat array (U,)."""
    ends: Ints = np.arange(1, len(rows) + 1) * rows.shape[1]
    return ends


def evaluate(name: str, scorer: Scorer, queries: Queries, ks: Sequence[int] = (10, 20)) -> Timed:
    """Return a system's metrics, and the seconds they took without those of the scorer."""
    in_scorer = 0.0

    def timed(user_rows: Ints) -> Floats:
        nonlocal in_scorer
        start = time.process_time()
        scores = scorer(user_rows)
        in_scorer += time.process_time() - start
        return scores

    start = time.process_time()
    (found,) = rank_queries(timed, [queries], ks=ks)
    ranked = time.process_time()
    result = score_ranking(name, found.rows, queries, ks=ks, areas=found.areas)
    return Timed(result, ranked - start - in_scorer, time.process_time() - ranked)


def largest_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Return the largest difference of the values that the other library has, too.

    Raises:
        ValueError: If the other library has a value that we do not have, or none.
    """
    if not theirs or not theirs.keys() <= ours.keys():
        raise ValueError(f"theirs must name some of {sorted(ours)}, got {sorted(theirs)}")
    return max(abs(ours[name] - theirs[name]) for name in theirs)


def save(log: Log, ranked: Ints, folder: Path) -> None:
    """Write what ``evaluation_peers`` reads."""
    np.save(folder / "users.npy", log.users)
    np.save(folder / "items.npy", log.items)
    np.save(folder / "ranked.npy", ranked)
    for name, rows in (("answers", log.queries.relevant), ("taken", log.queries.excluded)):
        counts = [len(one) for one in rows]
        np.savez(folder / f"{name}.npz", rows=np.concatenate(rows), counts=counts)


def compare(log: Log, python: str) -> dict[str, float]:
    """Return how many times our seconds the other libraries take, having compared the values."""
    ours = evaluate("vectors", log.score, log.queries, (K,))
    values = {name: one.mean for name, one in ours.result.estimates.items()}
    block = str(max(1, SCORES_AT_ONCE // len(log.items)))  # users at once, as for us
    with tempfile.TemporaryDirectory() as folder:
        save(log, ours.result.ranked, Path(folder))
        ranx = run_peer(python, "evaluation_peers.py", "ranx", folder)
        recbole = run_peer(python, "evaluation_peers.py", "recbole", folder, block)
    print(f"ours, top {K}: ranking {ours.ranking:.2f} s, judging {ours.judging:.2f} s")
    for name, peer in (("ranx", ranx), ("RecBole", recbole)):
        difference = largest_difference(values, peer["values"])
        print(f"{name} {peer['version']}: {peer['seconds']:.2f} s, largest difference {difference}")
        if difference > TOLERANCE:
            sys.exit(f"{name} must have our values, got {peer['values']} for {values}")
    return {
        "ratio_to_ranx": ranx["seconds"] / ours.judging,
        "ratio_to_peer": recbole["seconds"] / (ours.ranking + ours.judging),
    }


def peak_gb(n_users: int) -> float:
    """Return the largest memory of a process that evaluates popularity for some users."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--users", str(n_users)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(found.stdout))


def compare_systems(log: Log, generator: np.random.Generator) -> dict[str, float]:
    """Return the seconds of each system, and of the table that compares them."""
    systems: list[tuple[Role, SystemResult]] = []
    seconds = {}
    for name, scorer in build_scorers(log, generator).items():
        timed = evaluate(name, scorer, log.queries)
        systems.append(("baseline" if systems else "ours", timed.result))
        seconds[name] = timed.ranking + timed.judging
    facts = ItemFacts(
        n_users=len(log.users),
        buyers=generator.zipf(1.5, len(log.items)).clip(max=len(log.users)).astype(np.float64),
        embeddings=log.items,
        labels={"brand": [f"brand {row % 9}" for row in range(len(log.items))]},
    )
    halves = {"half": ["first", "second"] * (len(log.users) // 2)}
    start = time.process_time()
    ranking_table(log.queries, systems, facts=facts, user_labels=halves)
    return seconds | {"table": time.process_time() - start}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record; with ``--users`` print the memory of this process alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help="measure the memory alone")
    add_python_option(parser)
    options = parser.parse_args(arguments)
    generator = np.random.default_rng(0)
    if options.users:
        queries = build_queries(generator, options.users, N_ITEMS)
        popular = generator.zipf(1.5, N_ITEMS).clip(max=options.users).astype(np.float32)
        evaluate("popularity", lambda rows: np.tile(popular, (len(rows), 1)), queries)
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))
        return
    if options.memory:
        measure_memory()
        return
    check_installed(options.python, ("ranx", "recbole", "torch"))
    log = build_log(generator, N_USERS, N_ITEMS)
    for name, ratio in compare(log, options.python).items():
        show(name, ratio, "ratio")
    for name, seconds in compare_systems(log, generator).items():
        show(f"{name}.seconds", seconds, "s")
    show("peak_gb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB")
    measure_memory()


def measure_memory() -> None:
    """Print and record the largest memory for a few users and for many."""
    few = peak_gb(N_USERS)
    show("peak_gb_20k_users", few, "GB", MEMORY)
    many = peak_gb(MANY_USERS)
    show("peak_gb_1m_users", many, "GB", MEMORY)
    show("kb_per_user", (many - few) * 1e6 / (MANY_USERS - N_USERS), "kB", MEMORY)


def show(name: str, value: float, unit: str, command: str = COMMAND) -> None:
    """Print and record a figure at once, so that a run that ends early keeps what it measured."""
    print(f"{name}: {value:.3g} {unit}", flush=True)
    record("evaluation", f"evaluation.{name}", round(value, 3), unit, command)


if __name__ == "__main__":
    main()
