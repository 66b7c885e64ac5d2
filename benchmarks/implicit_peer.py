"""Recommend to all users by iALS of the library implicit.

It is run by ``benchmarks.recommend_many``, with the interpreter that has the library:
``PYTHON benchmarks/implicit_peer.py FILE K``. The file is a sparse matrix of users and items. It
prints the library's version and the seconds that recommending took, without those of training.
"""

import importlib
import json
import sys
import time
from importlib.metadata import version

import numpy as np
from scipy import sparse

N_FACTORS = 64


def main(path: str, k: int) -> None:
    """Train, recommend to all users at once, and print the seconds of the best of three times."""
    users_items = sparse.load_npz(path).tocsr().astype(np.float32)
    als = importlib.import_module("implicit.als")
    model = als.AlternatingLeastSquares(factors=N_FACTORS, iterations=3, random_state=0)
    model.fit(users_items, show_progress=False)
    everybody, seconds = np.arange(users_items.shape[0]), []
    for _ in range(3):
        start = time.perf_counter()
        rows, _ = model.recommend(everybody, users_items, N=k, filter_already_liked_items=False)
        seconds.append(time.perf_counter() - start)
    assert rows.shape == (len(everybody), k)
    print(json.dumps({"version": version("implicit"), "seconds": min(seconds)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
