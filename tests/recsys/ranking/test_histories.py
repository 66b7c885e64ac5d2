from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.answers import Event
from recsys.catalogue.store import Catalogue
from recsys.data.interactions import History, build_interactions
from recsys.data.timestamps import to_us
from recsys.errors import InvalidArgumentError
from recsys.ranking.histories import UserHistories
from recsys.schema import ItemSchema

MOMENT = datetime(2025, 6, 1, tzinfo=UTC)


def items(*names: str) -> pl.DataFrame:
    empty = ItemSchema.create_empty()
    known = pl.DataFrame({"item_id": names, "category": [[]] * len(names), "available": True})
    known = known.with_columns(attributes=pl.lit([], dtype=empty.schema["attributes"]))
    return ItemSchema.cast(pl.concat([empty, known], how="diagonal_relaxed"))


def table(*rows: tuple[str, str, str, datetime]) -> pl.DataFrame:
    columns = ["user_id", "item_id", "kind", "timestamp"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(quantity=1.0)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(items("mug", "lamp"), np.eye(2, dtype=np.float32))


@pytest.fixture
def histories(catalogue: Catalogue) -> UserHistories:
    events = table(("ann", "mug", "view", MOMENT), ("bob", "lamp", "buy", MOMENT))
    return UserHistories(catalogue, build_interactions(events, ["mug", "lamp"]))


def rows_and_kinds(history: History) -> list[tuple[int, int]]:
    return list(zip(history.item_rows.tolist(), history.kinds.tolist(), strict=True))


def test_a_user_has_the_events_of_the_bundle_and_a_stranger_none(
    histories: UserHistories,
) -> None:
    assert rows_and_kinds(histories.find("ann")) == [(0, 1)]
    assert rows_and_kinds(histories.find("nobody")) == []


def test_events_of_an_item_added_later_count(
    catalogue: Catalogue, histories: UserHistories
) -> None:
    catalogue.upsert(items("bowl"), np.ones((1, 2), dtype=np.float32))
    later = Event("ann", "bowl", "buy", MOMENT + timedelta(days=1))
    assert rows_and_kinds(histories.with_events("ann", [later])) == [(0, 1), (2, 0)]


def test_blanks_around_ids_are_cut_off_as_in_tables(histories: UserHistories) -> None:
    assert rows_and_kinds(histories.find(" ann ")) == [(0, 1)]
    later = Event("ann ", " lamp", "buy", MOMENT + timedelta(days=1))
    assert rows_and_kinds(histories.with_events(" ann", [later])) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("events", [None, 5, [{"user_id": "ann"}], Event("ann", "mug", "view")])
def test_what_is_not_a_list_of_events_is_refused(histories: UserHistories, events: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a list of Event records, got"):
        histories.with_events("ann", events)


def test_left_out_events_are_counted_once_in_the_log(
    histories: UserHistories, caplog: pytest.LogCaptureFixture
) -> None:
    of_others = Event("bob", "vase", "buy", MOMENT)
    assert rows_and_kinds(histories.with_events("ann", [of_others])) == [(0, 1)]
    assert not caplog.records
    own = [
        Event("ann", *what, MOMENT) for what in (("vase", "buy"), ("mug", "gift"), ("lamp", "buy"))
    ]
    for _ in range(2):
        assert rows_and_kinds(histories.with_events("ann", own)) == [(1, 0), (0, 1)]
    (record,) = caplog.records
    assert "2 of 3 events of a user are left out" in record.getMessage()
    assert "kinds (buy, view)" in record.getMessage()


def test_events_without_a_timestamp_happen_at_the_same_moment(histories: UserHistories) -> None:
    event = Event("ann", "lamp", "buy")
    assert rows_and_kinds(histories.with_events("ann", [event, event])) == [(0, 1), (1, 0)]


def test_a_moment_is_that_of_its_zone(histories: UserHistories) -> None:
    local = datetime.fromisoformat("2025-06-02T02:00:00+02:00")
    found = histories.with_events("nobody", [Event("nobody", "mug", "view", local)])
    assert found.timestamps_us.tolist() == [to_us("moment", MOMENT + timedelta(days=1))]


def test_a_moment_without_a_zone_is_refused(histories: UserHistories) -> None:
    with pytest.raises(ValueError, match="timestamp must have a time zone"):
        histories.with_events("ann", [Event("ann", "mug", "view", datetime(2025, 1, 1))])


def test_without_a_bundles_events_every_kind_is_unknown(catalogue: Catalogue) -> None:
    histories = UserHistories(catalogue, None)
    event = Event("ann", "mug", "view", MOMENT)
    assert rows_and_kinds(histories.with_events("ann", [event])) == []


def test_an_older_bundle_with_kinds_in_upper_case_knows_the_events_of_today(
    catalogue: Catalogue,
) -> None:
    events = table(("ann", "mug", "View", MOMENT), ("bob", "lamp", "Buy", MOMENT))
    older = UserHistories(catalogue, build_interactions(events, ["mug", "lamp"]))

    later = Event("ann", "lamp", "Buy", MOMENT + timedelta(days=1))
    assert rows_and_kinds(older.with_events("ann", [later])) == [(0, 1), (1, 0)]
