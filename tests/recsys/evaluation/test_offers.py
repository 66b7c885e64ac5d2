"""Recall of the sources and NDCG lost, recomputed user by user from the ranker's own answers."""

import math
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle import Bundle
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import History
from recsys.evaluation.offers import measure_offers, report_offers
from recsys.evaluation.queries import Queries, Scope
from recsys.evaluation.systems import bundle_queries
from recsys.ranking.candidates import SOURCES, CandidateSource
from recsys.ranking.catalogue_ranker import CatalogueRanker
from recsys.ranking.rankers import SimpleRanker
from recsys.ranking.scoring import UserRanker
from recsys.ranking.statistics import build_statistics
from tests.recsys.ranking.planted_tables import DAY, NOW, PURCHASE, history
from tests.recsys.ranking.test_catalogue_ranker import KINDS, NAMES, N, encoder, log, vectors
from tests.recsys.ranking.test_item_table import items

K = 10


def ranker(number: int, *, rank_all_up_to: int = 5) -> CatalogueRanker:
    return CatalogueRanker(
        Catalogue(items(*NAMES, price=1.0), vectors(N)),
        UserRanker(encoder(), SimpleRanker("iALS"), SimpleRanker("EASE")),
        CandidateSource(rank_all_up_to=rank_all_up_to, offers=dict.fromkeys(SOURCES, number)),
        build_statistics(log(), NOW, target_kinds=["purchase"]),
        KINDS,
    )


def planted(scope: Scope) -> tuple[Queries, list[History]]:
    """Return queries of five of eight users, and the histories of all."""
    generator = np.random.default_rng(1)
    histories = [
        history(
            *((int(row), PURCHASE, 30.0 - n) for n, row in enumerate(generator.integers(0, 28, 5)))
        )
        for _ in range(8)
    ]
    users = np.array([0, 2, 3, 6, 7])
    candidates = np.arange(N) != 11
    excluded, relevant = [], []
    for user in users.tolist():
        own = np.unique(histories[user].item_rows) if scope == "new" else np.empty(0, np.int64)
        right = generator.choice(N, 6, replace=False)
        excluded.append(own)
        relevant.append(np.setdiff1d(right, [*own, 11]))
    return Queries(scope, NOW, users, relevant, excluded, candidates), histories


def ndcg(ranked: list[int], right: set[int]) -> float:
    gains = sum(1 / math.log2(place + 2) for place, row in enumerate(ranked) if row in right)
    return gains / sum(1 / math.log2(place + 2) for place in range(min(K, len(right))))


@pytest.mark.parametrize("scope", ["all", "new"])
@pytest.mark.parametrize("number", [1, 3])
def test_the_table_is_what_users_get_one_by_one(scope: Scope, number: int) -> None:
    queries, histories = planted(scope)
    table = measure_offers(ranker(number), queries, histories)
    few, whole = ranker(number), ranker(number, rank_all_up_to=N)
    recalls: dict[str, list[float]] = {name: [] for name in (*SOURCES, "union")}
    gains: list[tuple[float, float]] = []
    n_offered = []
    for place, user in enumerate(queries.user_rows.tolist()):
        right, out = set(queries.relevant[place].tolist()), queries.excluded[place].tolist()
        found = few.offered(
            [histories[user]], NOW, mask=queries.candidates, discovery=scope == "new"
        )
        offered = {name: set(np.flatnonzero(one[0])) for name, one in found.by_source.items()}
        offered["union"] = set().union(*offered.values())
        for name, rows in offered.items():
            recalls[name].append(len(rows & right) / len(right))
        n_offered.append(len(offered["union"] - set(out)))
        each = []
        for one in (few, whole):
            scores = one.scores(
                [histories[user]], NOW, mask=queries.candidates, discovery=scope == "new"
            )[0]
            scores[out] = -np.inf
            order = np.argsort(-scores, kind="stable")[:K]
            each.append(ndcg([row for row in order.tolist() if np.isfinite(scores[row])], right))
        gains.append((each[0], each[1]))
    assert (table.scope, table.n_users, table.n_candidates) == (scope, 5, N - 1)
    assert table.n_offered == np.mean(n_offered)
    for row in table.sources:
        assert (row.number, row.recall.mean) == (
            number,
            pytest.approx(np.mean(recalls[row.source])),
        )
    assert table.union.mean == pytest.approx(np.mean(recalls["union"]))
    of_offers, of_all = np.mean(gains, axis=0)
    assert table.ndcg.mean == pytest.approx(of_offers)
    assert table.ndcg_of_all.mean == pytest.approx(of_all)
    assert table.lost.mean == pytest.approx(of_all - of_offers)
    assert table.lost_share == pytest.approx(1 - of_offers / of_all)


def test_nothing_is_lost_where_the_sources_offer_everything() -> None:
    queries, histories = planted("all")
    table = measure_offers(ranker(N), queries, histories)
    assert table.union.mean == 1.0
    assert table.lost.mean == table.lost_share == 0.0


def test_the_sample_is_bounded_seeded_and_the_same_in_blocks_of_any_size() -> None:
    queries, histories = planted("all")
    some = measure_offers(ranker(2), queries, histories, max_users=3, seed=4)
    again = measure_offers(ranker(2), queries, histories, max_scores=3 * N + 1, seed=4)
    assert some.n_users == 3
    assert some == again
    assert measure_offers(ranker(2), queries, histories, max_scores=1).n_users == 1


def test_a_moment_of_each_user_is_theirs() -> None:
    queries, histories = planted("all")
    moments = NOW - DAY * np.arange(8)
    shifted = Queries(
        "all", moments, queries.user_rows, queries.relevant, queries.excluded, queries.candidates
    )
    same = Queries(
        "all",
        np.full(8, NOW),
        queries.user_rows,
        queries.relevant,
        queries.excluded,
        queries.candidates,
    )
    assert measure_offers(ranker(2), same, histories) == measure_offers(
        ranker(2), queries, histories
    )
    assert measure_offers(ranker(2), shifted, histories).n_users == 5


def test_a_catalogue_that_is_ranked_whole_says_so(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    queries = bundle_queries(bundle, ["all", "new"])
    found = report_offers(bundle, queries)
    n_items = int(queries[0].candidates.sum())
    assert found.sentence.startswith(f"all {n_items} items are ranked")
    assert found.tables == []
    larger = report_offers(bundle, queries, rank_all_up_to=10)
    assert [table.scope for table in larger.tables] == ["all", "new"]
    assert all(0 < table.union.mean <= 1 for table in larger.tables)
    assert [row.source for row in larger.tables[0].sources] == list(SOURCES)
