from pathlib import Path

import numpy as np
import pytest

from benchmarks.evaluation import (
    ANSWERS,
    EARLIER,
    build_log,
    build_queries,
    evaluate,
    largest_difference,
    save,
)
from benchmarks.evaluation_peers import _pairs, _split


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_users_of_a_log_have_answers_that_they_did_not_take_before(
    generator: np.random.Generator,
) -> None:
    log = build_log(generator, n_users=20, n_items=300)
    assert len(log.queries) == 20
    for right, out in zip(log.queries.relevant, log.queries.excluded, strict=True):
        assert len(right) >= 2
        assert not set(right) & set(out)
        assert (np.diff(right) > 0).all()


def test_users_whose_memory_is_measured_have_distinct_items(
    generator: np.random.Generator,
) -> None:
    queries = build_queries(generator, n_users=30, n_items=3_000)
    assert len(queries) == 30
    for right, out in zip(queries.relevant, queries.excluded, strict=True):
        assert (len(right), len(out)) == (ANSWERS, EARLIER)
        assert len(np.union1d(right, out)) == ANSWERS + EARLIER
        assert (np.diff(right) > 0).all()
        assert (np.diff(out) > 0).all()
        assert max(right[-1], out[-1]) < 3_000


def test_two_answers_of_each_user_are_the_items_that_score_best(
    generator: np.random.Generator,
) -> None:
    log = build_log(generator, n_users=20, n_items=300)
    timed = evaluate("vectors", log.score, log.queries, (2, 10))
    assert timed.result.per_user["hit_rate@2"].min() == 1
    assert timed.ranking > 0
    assert timed.judging > 0


def test_what_is_saved_for_the_other_libraries_is_what_they_read(
    generator: np.random.Generator, tmp_path: Path
) -> None:
    log = build_log(generator, n_users=5, n_items=40)
    save(log, np.zeros((5, 3), dtype=np.int64), tmp_path)
    for name, rows in (("answers", log.queries.relevant), ("taken", log.queries.excluded)):
        found = _split(tmp_path, name)
        assert [one.tolist() for one in found] == [one.tolist() for one in rows]
    users, items = _pairs(_split(tmp_path, "answers"), list)
    wanted = [(user, item) for user, rows in enumerate(log.queries.relevant) for item in rows]
    assert list(zip(users, items, strict=True)) == wanted


def test_the_largest_difference_is_over_the_values_that_both_have() -> None:
    assert largest_difference({"a": 1.0, "b": 0.5}, {"a": 1.25}) == 0.25


@pytest.mark.parametrize("theirs", [{}, {"c": 1.0}])
def test_values_that_cannot_be_compared_are_an_error(theirs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="theirs must name some of"):
        largest_difference({"a": 1.0}, theirs)
