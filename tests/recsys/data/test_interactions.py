from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.interactions import (
    EMPTY_HISTORY,
    History,
    build_interactions,
    merge_histories,
)

# Row order is not the order of the ids, as in a live catalogue.
ITEM_IDS = ["mug", "lamp", "chair", "bowl"]
KINDS = ["purchase", "view"]

Row = tuple[int, int, int]  # item row, kind, timestamp
rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 3)), max_size=12)


def history(events: list[Row]) -> History:
    return History(*np.array(events, dtype=np.int64).reshape(-1, 3).T)


def as_trained(events: list[Row]) -> list[Row]:
    """Return the events in the order that training has them in."""
    if not events:
        return []
    start = datetime(2025, 1, 1, tzinfo=UTC)
    table = pl.DataFrame(
        {
            "user_id": "ann",
            "item_id": [ITEM_IDS[row] for row, _, _ in events],
            "kind": [KINDS[kind] for _, kind, _ in events],
            "timestamp": [start + timedelta(microseconds=time) for _, _, time in events],
            "quantity": 1.0,
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )
    (built,) = build_interactions(table, ITEM_IDS).histories()
    kinds = sorted({KINDS[kind] for _, kind, _ in events})
    codes = [KINDS.index(kinds[code]) for code in built.kinds]
    times = built.timestamps_us - int(start.timestamp()) * 1_000_000
    return list(zip(built.item_rows.tolist(), codes, times.tolist(), strict=True))


@given(rows, rows)
def test_live_events_count_once_and_stand_where_training_would_put_them(
    bundled: list[Row], live: list[Row]
) -> None:
    fresh = set(live) - set(bundled)
    wanted = as_trained([*bundled, *fresh])

    merged = merge_histories(history(as_trained(bundled)), history(live), ITEM_IDS)

    assert list(zip(*(column.tolist() for column in merged), strict=True)) == wanted


def test_a_repeat_inside_the_bundle_is_kept_and_a_live_repeat_is_dropped() -> None:
    bundled = history([(0, 1, 5), (0, 1, 5)])

    merged = merge_histories(bundled, history([(0, 1, 5), (1, 1, 7), (1, 1, 7)]), ITEM_IDS)

    assert merged.item_rows.tolist() == [0, 0, 1]
    assert merged.timestamps_us.tolist() == [5, 5, 7]


def test_events_of_another_kind_or_moment_are_other_events() -> None:
    merged = merge_histories(history([(0, 0, 5)]), history([(0, 1, 5), (0, 0, 6)]), ITEM_IDS)

    assert merged.kinds.tolist() == [0, 1, 0]


def test_a_history_without_live_events_is_the_bundles() -> None:
    bundled = history([(2, 0, 1)])

    assert merge_histories(bundled, EMPTY_HISTORY, ITEM_IDS) is bundled
