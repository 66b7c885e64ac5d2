"""Tables of systems: their order, and the comparison with ours."""

import numpy as np
import pytest

from recsys.data.arrays import Floats, Ints
from recsys.evaluation.protocol import SystemResult, compare, evaluate
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import Role, headline, ranking_table


@pytest.fixture
def queries() -> Queries:
    """Thirty users who each want one of thirty items."""
    users = np.arange(30)
    return Queries(
        scope="new",
        now_us=0,
        user_rows=users,
        relevant=[np.array([user]) for user in users],
        excluded=[np.empty(0, dtype=np.int64)] * 30,
        candidates=np.ones(30, dtype=bool),
    )


def system(name: str, queries: Queries, share_right: float) -> SystemResult:
    """A system that knows the answers of the first users only."""

    def scorer(user_rows: Ints) -> Floats:
        known = user_rows < share_right * 30
        return (np.eye(30)[user_rows] * known[:, None]).astype(np.float32)

    return evaluate(name, scorer, queries)


def test_table_has_ours_first_and_then_the_best(queries: Queries) -> None:
    weak, strong = system("weak", queries, 0.2), system("strong", queries, 0.9)
    ours = system("full model", queries, 0.6)
    table = ranking_table(queries, [("baseline", weak), ("ours", ours), ("ablation", strong)])
    assert [row.name for row in table.systems] == ["full model", "strong", "weak"]
    assert (table.scope, table.n_users, table.n_candidates) == ("new", 30, 30)


def test_every_other_system_is_compared_with_ours_user_by_user(queries: Queries) -> None:
    ours, weak = system("full model", queries, 0.6), system("weak", queries, 0.2)
    first, second = ranking_table(queries, [("baseline", weak), ("ours", ours)]).systems
    assert first.behind == {}
    assert second.behind["ndcg@10"] == compare(ours, weak, "ndcg@10")
    assert second.behind["ndcg@10"].low > 0


def test_table_without_ours_is_an_error(queries: Queries) -> None:
    weak = system("weak", queries, 0.2)
    with pytest.raises(ValueError, match="exactly one with the role 'ours', got 0"):
        ranking_table(queries, [("baseline", weak)])


def test_the_headline_is_what_was_measured_the_top_at_the_smallest_k_recall_at_the_largest() -> (
    None
):
    measured = [f"{name}@{k}" for name in ("ndcg", "recall", "hit_rate", "mrr") for k in (5, 50)]
    assert headline(measured) == ["ndcg@5", "recall@50", "hit_rate@5"]
    assert headline(["ndcg@7", "recall@7"]) == ["ndcg@7", "recall@7"]


def test_tables_of_any_cut_off_are_sorted(queries: Queries) -> None:
    systems: list[tuple[Role, SystemResult]] = []
    cases: list[tuple[Role, str, float]] = [("baseline", "weak", 0.2), ("ours", "full", 0.4)]
    for role, name, share in cases:
        known = share * 30

        def scorer(user_rows: Ints, known: float = known) -> Floats:
            return (np.eye(30)[user_rows] * (user_rows < known)[:, None]).astype(np.float32)

        systems.append((role, evaluate(name, scorer, queries, ks=[3])))
    assert [row.name for row in ranking_table(queries, systems).systems] == ["full", "weak"]
