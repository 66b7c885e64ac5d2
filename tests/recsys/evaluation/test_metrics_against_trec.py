"""Our metrics are those of trec_eval itself, to 1e-12."""

import numpy as np
import pytest
import pytrec_eval

from recsys.data.arrays import Ints
from recsys.evaluation.metrics import METRICS, find_hits

N_USERS, N_ITEMS, K = 200, 60, 20
KS = (1, 5, 10, 20)
# Name of trec_eval's measure, of which each has several cut-offs.
TREC = {
    "ndcg": "ndcg_cut",
    "recall": "recall",
    "hit_rate": "success",
    "precision": "P",
    "average_precision": "map_cut",
}


@pytest.fixture(scope="module")
def case() -> tuple[Ints, list[Ints]]:
    """Rankings of up to K items, some short, and up to 30 relevant items for each user."""
    generator = np.random.default_rng(7)
    ranked = np.array([generator.permutation(N_ITEMS)[:K] for _ in range(N_USERS)])
    lengths = generator.integers(1, K + 1, size=N_USERS)
    ranked[np.arange(K) >= lengths[:, None]] = -1
    relevant = [
        np.sort(generator.permutation(N_ITEMS)[: generator.integers(1, 31)]) for _ in range(N_USERS)
    ]
    return ranked, relevant


def trec(case: tuple[Ints, list[Ints]], measures: set[str], k: int = K) -> dict[str, dict]:
    ranked, relevant = case
    truth = {f"u{u}": {f"i{row}": 1 for row in rows} for u, rows in enumerate(relevant)}
    run = {
        f"u{u}": {f"i{row}": float(K - place) for place, row in enumerate(rows[:k]) if row >= 0}
        for u, rows in enumerate(ranked.tolist())
    }
    return pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("name", TREC)
def test_metric_equals_that_of_trec_eval(name: str, k: int, case: tuple[Ints, list[Ints]]) -> None:
    found = trec(case, {f"{TREC[name]}.{k}"})
    expected = [found[f"u{user}"][f"{TREC[name]}_{k}"] for user in range(N_USERS)]
    np.testing.assert_allclose(METRICS[name](find_hits(*case), k), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", KS)
def test_reciprocal_rank_equals_that_of_trec_eval_on_the_first_k(
    k: int, case: tuple[Ints, list[Ints]]
) -> None:
    found = trec(case, {"recip_rank"}, k)
    expected = [found[f"u{user}"]["recip_rank"] for user in range(N_USERS)]
    np.testing.assert_allclose(METRICS["mrr"](find_hits(*case), k), expected, rtol=0, atol=1e-12)
