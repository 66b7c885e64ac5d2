"""``recommend_many`` answers as ``recommend`` does, user by user."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.catalogue.filters import Filters
from recsys.errors import InvalidArgumentError
from recsys.ranking.candidates import SOURCES
from recsys.recommender import Recommender

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = {
    "user_id": pl.String,
    "rank": pl.Int64,
    "item_id": pl.String,
    "score": pl.Float64,
    "source": pl.String,
    "propensity": pl.Float64,
    "probability": pl.Float64,
    "degraded": pl.String,
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle(tiny_bundle)


@pytest.fixture(scope="module")
def recommender(bundle: Bundle) -> Recommender:
    return Recommender(bundle)


@pytest.fixture(scope="module")
def users(bundle: Bundle) -> list[str]:
    """Users with the longest, shortest and middling histories, a stranger, and one who repeats."""
    interactions = bundle.interactions
    counts = np.bincount(interactions.user_rows, minlength=interactions.n_users)
    order = np.argsort(counts, kind="stable")
    picked = [interactions.user_ids[row] for row in (*order[:4], *order[::12], *order[-4:])]
    return ["nobody", *reversed(picked), picked[0], "nobody"]


def check(recommender: Recommender, users: list[str], **wanted: Any) -> None:
    """Compare the table with one call for each user."""
    table = recommender.recommend_many(users, now=NOW, block_size=7, **wanted)
    assert dict(table.schema) == COLUMNS
    start = 0
    for user in users:
        alone = recommender.recommend(user, now=NOW, **wanted)
        together = table[start : start + len(alone)]
        start += len(alone)
        assert together["user_id"].to_list() == [user] * len(alone)
        assert together["rank"].to_list() == list(range(1, len(alone) + 1))
        assert together["item_id"].to_list() == [result.item_id for result in alone]
        assert together["score"].to_list() == [result.score for result in alone]
        assert together["probability"].to_list() == [result.probability for result in alone]
        sources = dict(together.select("item_id", "source").iter_rows())
        assert sources == {result.item_id: result.source for result in alone}
    assert start == len(table)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"k": 500},
        {"exclude_seen": True},
        {"k": 3, "filters": Filters(price_max=60), "exclude_seen": True},
        {"filters": Filters(available_only=False)},
        {"filters": Filters(category=("No such category",))},
    ],
    ids=str,
)
def test_many_users_get_what_each_gets_alone(
    recommender: Recommender, users: list[str], wanted: dict[str, Any]
) -> None:
    check(recommender, users, **wanted)


def test_excluded_items_are_left_out_for_all(recommender: Recommender, users: list[str]) -> None:
    excluded = recommender.catalogue.item_ids[::2]
    check(recommender, users, exclude=excluded)
    found = recommender.recommend_many(users, k=500, now=NOW, exclude=excluded)
    assert not set(found["item_id"]) & set(excluded)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_many_users_of_a_large_catalogue_get_what_each_gets_alone(
    tiny_bundle: Path, users: list[str], exclude_seen: bool
) -> None:
    few = Recommender(Bundle(tiny_bundle), rank_all_up_to=90, offers=dict.fromkeys(SOURCES, 12))
    check(few, users, k=20, exclude_seen=exclude_seen)


def test_new_and_deleted_items_count_as_for_one_user(tiny_bundle: Path, users: list[str]) -> None:
    recommender = Recommender(Bundle(tiny_bundle))
    known = recommender.bundle.items.head(3).drop("image")
    recommender.add_items(known.with_columns(item_id="new " + pl.col("item_id")))
    recommender.delete_items(recommender.catalogue.item_ids[5:9])
    check(recommender, users, k=500)
    found = recommender.recommend_many(["nobody"], k=500, now=NOW)["item_id"]
    assert set(recommender.catalogue.item_ids[-3:]) <= set(found)
    assert not set(recommender.catalogue.item_ids[5:9]) & set(found)


@pytest.mark.parametrize("block_size", [1, 3, 1_000, None])
def test_the_size_of_a_block_changes_nothing(
    recommender: Recommender, users: list[str], block_size: int | None
) -> None:
    wanted = recommender.recommend_many(users, now=NOW, block_size=2)
    found = recommender.recommend_many(users, now=NOW, block_size=block_size)
    assert found.equals(wanted)


def test_nobody_asked_is_an_empty_table(recommender: Recommender) -> None:
    table = recommender.recommend_many([])
    assert len(table) == 0
    assert dict(table.schema) == COLUMNS


def test_a_column_of_user_ids_can_be_passed(recommender: Recommender, users: list[str]) -> None:
    wanted = recommender.recommend_many(users, now=NOW)
    column = pl.Series("user_id", users)
    assert recommender.recommend_many(column, now=NOW).equals(wanted)


def test_one_text_is_not_taken_for_many_users(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="users must be a list of ids, got the text 'user-1'"):
        recommender.recommend_many("user-1")


def test_a_user_that_is_not_an_id_is_refused(recommender: Recommender, users: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"ids \(text\), got one of type int"):
        recommender.recommend_many([17])  # type: ignore[list-item]

    history: Any = recommender.history(users[0])
    with pytest.raises(InvalidArgumentError, match="got one of type History"):
        recommender.recommend_many([users[0], history])


def test_a_block_of_no_users_is_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        recommender.recommend_many(["nobody"], block_size=0)


def test_a_moment_without_a_zone_is_refused(recommender: Recommender) -> None:
    with pytest.raises(ValueError, match="now must have a time zone"):
        recommender.recommend_many(["nobody"], now=datetime(2026, 1, 1))
