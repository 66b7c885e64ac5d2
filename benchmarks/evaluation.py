"""Time the evaluation of a large shop: 20,000 users, 100,000 items ranked for each.

Run from the repository's root: ``python -m benchmarks.evaluation``. Users, items and events are
random; the three systems have the shapes that scores have: all different, the same for everybody,
and all alike but a few. The time of the scorers is not counted.
"""

import resource
import time

import numpy as np

from benchmarks.record import record
from recsys.data.arrays import Floats, Ints
from recsys.evaluation.facts import ItemFacts
from recsys.evaluation.protocol import Scorer, SystemResult, rank_queries, score_ranking
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import Role
from recsys.evaluation.tables import ranking_table

COMMAND = "python -m benchmarks.evaluation"
N_USERS, N_ITEMS, DIM = 20_000, 100_000, 64


def build_queries(generator: np.random.Generator) -> Queries:
    """Return queries of users with about 5 answers and 20 earlier items each."""

    def draw(count: int) -> list[Ints]:
        return [np.unique(generator.integers(0, N_ITEMS, count)) for _ in range(N_USERS)]

    taken, answers = draw(20), draw(5)
    answers = [np.setdiff1d(right, out) for right, out in zip(answers, taken, strict=True)]
    return Queries("new", 0, np.arange(N_USERS), answers, taken, np.ones(N_ITEMS, dtype=np.bool_))


def build_scorers(generator: np.random.Generator) -> dict[str, Scorer]:
    """Return the scorers by name."""
    users = generator.normal(size=(N_USERS, DIM)).astype(np.float32)
    items = generator.normal(size=(N_ITEMS, DIM)).astype(np.float32)
    popular = generator.zipf(1.5, N_ITEMS).clip(max=N_USERS).astype(np.float32)
    own = generator.integers(0, N_ITEMS, size=(N_USERS, 10))

    def few(user_rows: Ints) -> Floats:
        scores = np.zeros((len(user_rows), N_ITEMS), dtype=np.float32)
        np.put_along_axis(scores, own[user_rows], np.float32(1), axis=1)
        return scores

    return {
        "vectors": lambda user_rows: users[user_rows] @ items.T,
        "popularity": lambda user_rows: np.tile(popular, (len(user_rows), 1)),
        "few": few,
    }


def rank(name: str, scorer: Scorer, queries: Queries) -> tuple[SystemResult, float]:
    """Return a system's metrics, and the seconds that ranking and scoring it took."""
    in_scorer = 0.0

    def timed(user_rows: Ints) -> Floats:
        nonlocal in_scorer
        start = time.perf_counter()
        scores = scorer(user_rows)
        in_scorer += time.perf_counter() - start
        return scores

    start = time.perf_counter()
    (found,) = rank_queries(timed, [queries])
    result = score_ranking(name, found.rows, queries, areas=found.areas)
    return result, time.perf_counter() - start - in_scorer


def main() -> None:
    """Measure, print and record."""
    generator = np.random.default_rng(0)
    queries = build_queries(generator)
    systems: list[tuple[Role, SystemResult]] = []
    for name, scorer in build_scorers(generator).items():
        result, seconds = rank(name, scorer, queries)
        systems.append(("baseline" if systems else "ours", result))
        print(f"{name}: {seconds:.1f} s")
        record("evaluation", f"evaluation.{name}.seconds", round(seconds, 1), "s", COMMAND)
    facts = ItemFacts(
        n_users=N_USERS,
        buyers=generator.zipf(1.5, N_ITEMS).clip(max=N_USERS).astype(np.float64),
        embeddings=generator.normal(size=(N_ITEMS, DIM)).astype(np.float32),
        labels={"brand": [f"brand {row % 9}" for row in range(N_ITEMS)]},
    )
    halves = {"half": ["first", "second"] * (N_USERS // 2)}
    start = time.perf_counter()
    ranking_table(queries, systems, facts=facts, user_labels=halves)
    seconds = time.perf_counter() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"table: {seconds:.1f} s, peak memory {peak_gb:.2f} GB")
    record("evaluation", "evaluation.table.seconds", round(seconds, 1), "s", COMMAND)
    record("evaluation", "evaluation.peak_gb", round(peak_gb, 2), "GB", COMMAND)


if __name__ == "__main__":
    main()
