"""Recommend to 10,000 users at once, beside one by one, and beside iALS of the library implicit.

Run from the repository's root: ``python -m benchmarks.recommend_many --python PYTHON``, with an
interpreter that has implicit (see ``benchmarks/peers.py``). The shop has 4,000 items
(``benchmarks.sized_shops``). implicit multiplies the factors of users and items and keeps the best.
We do that and compute all features of the offers, so that we are slower; the ratio says how much.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scipy import sparse

from benchmarks.peers import add_python_option, check_installed, run_peer
from benchmarks.record import record
from benchmarks.sized_shops import bundle_of
from recsys import Recommender
from recsys.data.interactions import Interactions
from recsys.data.timestamps import from_us

COMMAND = "python -m benchmarks.recommend_many --python PYTHON"
N_ITEMS, SAMPLE, K = 4_000, 300, 10


def users_per_s_of_peer(python: str, interactions: Interactions) -> float:
    """Return to how many users implicit recommends in a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taken.npz"
        sparse.save_npz(path, interactions.matrix())
        found = run_peer(python, "implicit_peer.py", str(path), str(K))
    print(f"implicit {found['version']}: {found['seconds']:.2f} s")
    return float(interactions.n_users / found["seconds"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_python_option(parser)
    python: str = parser.parse_args(arguments).python
    check_installed(python, ("implicit", "scipy"))
    recommender = Recommender(bundle_of(N_ITEMS))
    interactions = recommender.bundle.interactions
    users = list(interactions.user_ids)
    now = from_us(int(interactions.timestamps_us[-1]) + 1)
    recommender.recommend_many(users[:SAMPLE], K, now=now)  # warms up
    start = time.perf_counter()
    for user in users[:SAMPLE]:
        recommender.recommend(user, K, now=now)
    single = SAMPLE / (time.perf_counter() - start)
    start = time.perf_counter()
    recommender.recommend_many(users, K, now=now)
    many = len(users) / (time.perf_counter() - start)
    theirs = users_per_s_of_peer(python, interactions)
    figures = {
        "users_per_s": (many, "users/s"),
        "ratio_to_single": (many / single, "ratio"),
        "ratio_to_implicit": (many / theirs, "ratio"),
    }
    for name, (value, unit) in figures.items():
        print(f"{name}: {value:.3g} {unit}")
        record("recommend_many", f"recommend_many.{name}", round(value, 4), unit, COMMAND)


if __name__ == "__main__":
    main()
