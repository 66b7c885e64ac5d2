"""How many of the answers the sources of candidates offer, and what ranking only offers costs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.data.arrays import Ints
from recsys.data.interactions import History
from recsys.evaluation.bootstrap import difference, estimate
from recsys.evaluation.metrics import find_hits, ndcg_at_k
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import OfferRow, Offers, OfferTable
from recsys.evaluation.systems import bundle_split, split_moment
from recsys.ranking.best import Offered
from recsys.ranking.candidates import RANK_ALL_ITEMS
from recsys.ranking.catalogue_ranker import SCORED_AT_ONCE, CatalogueRanker
from recsys.recommender import Recommender

MAX_USERS = 1_000
MAX_SCORES = 30_000_000  # users times items; ranking all items of a large catalogue takes long
K = 10


def report_offers(
    bundle: Bundle,
    query_sets: Sequence[Queries],
    *,
    rank_all_up_to: int = RANK_ALL_ITEMS,
    seed: int = 0,
) -> Offers:
    """Return what the sources offer of the answers after a bundle's split.

    Args:
        bundle: A bundle with its ranking part.
        query_sets: Queries of each scope, of which "all" and "new" are measured.
        rank_all_up_to: Number of items up to which all of them are ranked.
        seed: Random seed of the samples of users.
    """
    split = split_moment(bundle)
    ranker = Recommender(bundle, as_of=split, rank_all_up_to=rank_all_up_to).ranker
    n_items = int(query_sets[0].candidates.sum())
    if ranker.candidates.ranks_all(query_sets[0].candidates):
        return Offers(
            f"all {n_items:,} items are ranked, so the sources of candidates only name results",
            tables=[],
        )
    histories = bundle_split(bundle).train.histories()
    return Offers(
        f"of {n_items:,} items, those that the sources of candidates offer are ranked",
        tables=[
            measure_offers(ranker, queries, histories, seed=seed)
            for queries in query_sets
            if queries.scope != "cold"
        ],
    )


def measure_offers(
    ranker: CatalogueRanker,
    queries: Queries,
    histories: Sequence[History],
    *,
    max_users: int = MAX_USERS,
    max_scores: int = MAX_SCORES,
    seed: int = 0,
) -> OfferTable:
    """Return the recall of each source, and NDCG@10 with and without the choice of candidates.

    Args:
        ranker: What ranks, as of the moment of the queries.
        queries: Queries with their answers.
        histories: Events of every user before the moment.
        max_users: Maximum number of users in the sample.
        max_scores: Maximum number of scores, which makes the sample smaller in a large catalogue.
        seed: Random seed of the sample.
    """
    n_items = len(queries.candidates)
    count = min(len(queries), max_users, max(1, max_scores // n_items))
    sample = np.sort(np.random.default_rng(seed).permutation(len(queries))[:count])
    now_us: Ints = np.broadcast_to(np.asarray(queries.now_us), (len(histories),))
    size = max(1, SCORED_AT_ONCE // n_items)
    parts = []
    for start in range(0, count, size):
        some = sample[start : start + size]
        users = queries.user_rows[some]
        found = ranker.offered(
            [histories[user] for user in users.tolist()],
            now_us[users],
            mask=queries.candidates,
            discovery=queries.scope == "new",
        )
        parts.append(_measure(found, queries, some))
    recalls, counts, ndcg = (np.concatenate(one) for one in zip(*parts, strict=True))
    offers = {name: n for name, n in ranker.candidates.offers.items() if n}
    return OfferTable(
        scope=queries.scope,
        n_users=count,
        n_candidates=int(queries.candidates.sum()),
        n_offered=float(counts.mean()),
        sources=[
            OfferRow(name, number, estimate(recalls[:, column]))
            for column, (name, number) in enumerate(offers.items())
        ],
        union=estimate(recalls[:, -1]),
        ndcg=estimate(ndcg[:, 0]),
        ndcg_of_all=estimate(ndcg[:, 1]),
        lost=difference(ndcg[:, 1], ndcg[:, 0]),
    )


_Values = NDArray[np.float64]


def _measure(found: Offered, queries: Queries, some: Ints) -> tuple[_Values, _Values, _Values]:
    """Return for each of some queries (q,) its recalls, its number of offers and its NDCG.

    The recalls (q, S + 1) are those of the sources and of their union. The NDCG (q, 2) is that of
    the ranking of offers and of the ranking of all items.
    """
    offered = np.stack([*found.by_source.values()])  # (S, q, N)
    offered = np.concatenate([offered, offered.any(axis=0, keepdims=True)])
    recalls, counts, ranked = [], [], []
    for place, query in enumerate(some.tolist()):
        right, out = queries.relevant[query], queries.excluded[query]
        recalls.append(offered[:, place, right].mean(axis=1))
        scores = found.scores[place].copy()
        scores[out] = -np.inf
        union = offered[-1, place] & np.isfinite(scores)
        counts.append(union.sum())
        ranked += [_first(np.where(union, scores, -np.inf)), _first(scores)]
    twice = [queries.relevant[query] for query in some.tolist() for _ in range(2)]
    ndcg = ndcg_at_k(find_hits(np.stack(ranked), twice), K).reshape(-1, 2)
    return np.stack(recalls), np.array(counts, dtype=np.float64), ndcg


def _first(scores: NDArray[np.float32]) -> Ints:
    """Return the rows of the ten highest scores (10,); -1 where there are fewer."""
    best = np.argsort(-scores, kind="stable")[:K]
    rows = np.full(K, -1, dtype=np.int64)
    rows[: len(best)] = np.where(np.isfinite(scores[best]), best, -1)
    return rows
