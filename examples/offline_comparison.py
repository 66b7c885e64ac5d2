"""Compare a ranking of your own with a bundle: which is better, and by how much?

Run after ``recsys demo``::

    python examples/offline_comparison.py out/demo
"""

import sys

import numpy as np
from numpy.typing import NDArray

from recsys import Bundle
from recsys.evaluation.protocol import compare, evaluate
from recsys.evaluation.systems import bundle_queries, recommender_scorers


def main(path: str) -> None:
    """Print NDCG@10 of the bundle and of "newest items first", and their paired difference."""
    bundle = Bundle(path)
    bundle.require("ranking")
    (queries,) = bundle_queries(bundle, ["all"])
    age = bundle.items["created_at"].dt.timestamp("us").fill_null(0).rank().to_numpy()

    def newest_first(user_rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.tile(age.astype(np.float32), (len(user_rows), 1))  # (users, N)

    made = recommender_scorers(bundle)
    ours = evaluate("bundle", made.scorer, queries, make_list=made.make_list)
    theirs = evaluate("newest first", newest_first, queries)
    for result in (ours, theirs):
        mean, low, high = result.estimates["ndcg@10"]
        print(f"{result.name:14} {mean:.3f} [{low:.3f}, {high:.3f}]")
    mean, low, high = compare(ours, theirs, "ndcg@10")
    print(f"{'difference':14} {mean:.3f} [{low:.3f}, {high:.3f}] over {len(queries)} users")


if __name__ == "__main__":
    main(*sys.argv[1:])
