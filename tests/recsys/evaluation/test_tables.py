"""Tables of systems: their order, and the comparison with ours."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.data.arrays import Floats, Ints
from recsys.evaluation.bootstrap import estimate
from recsys.evaluation.exposure import diversity, gini, novelty
from recsys.evaluation.facts import ItemFacts
from recsys.evaluation.protocol import SystemResult, compare, evaluate
from recsys.evaluation.queries import Queries
from recsys.evaluation.results import Role, headline
from recsys.evaluation.significance import paired_p_values
from recsys.evaluation.tables import ranking_table


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
    assert second.behind["ndcg@10"] == pytest.approx(compare(ours, weak, "ndcg@10"))
    assert second.behind["ndcg@10"].low > 0


def test_differences_are_tested_and_corrected_for_the_number_of_systems(queries: Queries) -> None:
    ours, near, weak = (
        system(name, queries, share) for name, share in (("ours", 0.6), ("near", 0.55), ("weak", 0))
    )
    table = ranking_table(queries, [("ours", ours), ("baseline", near), ("baseline", weak)])
    assert table.systems[0].tests == {}
    tests = {row.name: row.tests["mrr@10"] for row in table.systems[1:]}
    alone = {
        name: paired_p_values((ours.per_user["mrr@10"] - one.per_user["mrr@10"])[:, None])[0]
        for name, one in (("near", near), ("weak", weak))
    }
    for name, test in tests.items():
        assert test.p == pytest.approx(alone[name], abs=0.02)
    assert tests["weak"].p_holm == pytest.approx(min(1, 2 * tests["weak"].p))
    assert tests["near"].p_holm == tests["near"].p == 1  # one user is no evidence
    assert tests["weak"].p_holm < 0.01
    assert tests["weak"].detectable > tests["near"].detectable > 0


def test_slices_have_every_system_and_their_means_make_up_the_whole(queries: Queries) -> None:
    ours, weak = system("full model", queries, 0.6), system("weak", queries, 0.2)
    labels = {"activity": ["low"] * 10 + ["high"] * 20}
    table = ranking_table(queries, [("baseline", weak), ("ours", ours)], user_labels=labels)
    assert [(row.label, row.n_users) for row in table.slices] == [("low", 10), ("high", 20)]
    for result in (ours, weak):
        parts = [(row.systems[result.name].mean, row.n_users) for row in table.slices]
        whole = sum(mean * users for mean, users in parts) / 30
        assert whole == pytest.approx(result.estimates["ndcg@10"].mean)


def test_a_group_that_is_shown_other_labels_than_it_takes_has_a_gap(queries: Queries) -> None:
    ours = system("ours", queries, 1.0)
    odd = np.arange(len(queries)) % 2 == 1
    wanted = np.array([rows[0] for rows in queries.relevant])
    # The odd users are shown what the even ones took, and the other way round.
    swapped = np.where(odd, np.roll(wanted, 1), np.roll(wanted, -1))[:, None]
    mixed = replace(ours, name="mixed", ranked=swapped)
    colours = np.full(30, "red")
    colours[wanted[odd]] = "blue"
    facts = ItemFacts(1, np.zeros(30), np.ones((30, 2), np.float32), {"colour": list(colours)})
    labels = {"users": ["odd" if one else "even" for one in odd]}
    rows = [("ours", replace(ours, ranked=wanted[:, None])), ("other", mixed)]
    table = ranking_table(queries, rows, facts=facts, user_labels=labels)
    for row in table.slices:
        assert row.exposure_gap == {"colour": {"ours": 0.0, "mixed": 1.0}}
    assert table.exposure[0].shown["mixed"] == table.exposure[0].taken


def test_labels_of_other_users_are_an_error(queries: Queries) -> None:
    ours = system("full model", queries, 0.6)
    with pytest.raises(
        ValueError, match=r"user_labels\['age'\] must have a label for each of the 30"
    ):
        ranking_table(queries, [("ours", ours)], user_labels={"age": ["old"]})


def test_what_is_shown_is_measured_by_the_functions_of_exposure(queries: Queries) -> None:
    ours, weak = system("full model", queries, 0.6), system("weak", queries, 0.2)
    facts = ItemFacts(
        n_users=8,
        buyers=np.arange(30) / 4.0,
        embeddings=np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32),
        labels={"colour": ["red"] * 12 + ["blue"] * 18},
    )
    table = ranking_table(queries, [("baseline", weak), ("ours", ours)], facts=facts)
    ranked = {"full model": ours, "weak": weak}
    for row in table.systems:
        result = ranked[row.name]
        assert row.shown is not None
        expected = novelty(result.ranked, facts.buyers, 8, 10)
        assert row.shown.novelty[10] == pytest.approx(estimate(expected))
        expected = diversity(result.ranked, facts.embeddings, 20)
        assert row.shown.diversity[20] == pytest.approx(estimate(expected))
        assert row.shown.gini[20] == gini(result.ranked, queries.candidates, 20)
    assert table.popularity_taken is not None
    assert table.popularity_taken.mean == pytest.approx(0.5)  # every item is taken once
    (colours,) = table.exposure
    assert colours.on_offer == colours.taken == {"blue": 18 / 30, "red": 12 / 30}
    assert sum(colours.shown["weak"].values()) == pytest.approx(1)


def test_what_is_on_offer_is_a_share_of_the_candidates(queries: Queries) -> None:
    some = replace(queries, candidates=np.arange(30) >= 10)
    facts = ItemFacts(1, np.zeros(30), np.ones((30, 2), np.float32), {"c": ["x"] * 12 + ["y"] * 18})
    (one,) = ranking_table(some, [("ours", system("ours", some, 0))], facts=facts).exposure
    assert one.on_offer == {"x": 0.1, "y": 0.9}


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
