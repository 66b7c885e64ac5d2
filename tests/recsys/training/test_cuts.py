from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from recsys.config import SplitConfig
from recsys.data.interactions import Interactions, build_interactions
from recsys.errors import DataError
from recsys.training.cuts import check_windows, choose_cuts, on_offer

START = datetime(2025, 1, 1, tzinfo=UTC)
IDS = ("a", "b", "c")


def at_us(day: float) -> int:
    return round((START + timedelta(days=day)).timestamp() * 1e6)


def events(days: list[float], item_ids: str = "abc", kind: str = "view") -> Interactions:
    table = pl.DataFrame(
        {
            "user_id": ["u"] * len(days),
            "item_id": [item_ids[n % len(item_ids)] for n in range(len(days))],
            "kind": [kind] * len(days),
            "timestamp": [START + timedelta(days=day) for day in days],
            "quantity": [1.0] * len(days),
        }
    )
    return build_interactions(table, IDS)


def items(*created: int | None) -> pl.DataFrame:
    """Return the three items, created on these days."""
    times = [None if day is None else START + timedelta(days=day) for day in created]
    return pl.DataFrame(
        {"item_id": IDS, "created_at": times},
        schema_overrides={"created_at": pl.Datetime("us", "UTC")},
    )


def test_cuts_are_whole_horizons_before_the_split() -> None:
    cuts = choose_cuts(events([0.0, 29.5]), SplitConfig(horizon="5d", n_cuts=3))
    assert cuts == tuple(at_us(day) for day in (10, 15, 20, 25))


def test_events_that_begin_too_late_are_refused_with_the_longest_horizon_that_fits() -> None:
    interactions = events([0.0, 29.5])
    for split in (SplitConfig(horizon="10d"), SplitConfig(horizon="10d", at=START + timedelta(30))):
        with pytest.raises(DataError, match=r"first of 3 cuts of 10d, .* as the first") as caught:
            choose_cuts(interactions, split)
        longest = str(caught.value).partition("at most ")[2].partition(",")[0]
        assert len(choose_cuts(interactions, split.model_copy(update={"horizon": longest}))) == 4
    with pytest.raises(DataError, match="at most 5h, lower n_cuts"):
        choose_cuts(events([0.0, 0.5]), SplitConfig(horizon="10d"))


def test_a_split_before_all_events_names_no_horizon() -> None:
    with pytest.raises(DataError, match="as the first; lower n_cuts, set a later at") as caught:
        choose_cuts(events([0.0, 29.5]), SplitConfig(at=START - timedelta(1)))
    assert "at most" not in str(caught.value)


def test_a_split_before_the_earliest_event_that_is_read_is_refused() -> None:
    for at in (datetime(1, 1, 1), datetime(1970, 12, 31, tzinfo=UTC)):
        with pytest.raises(
            DataError, match=r"at must not be before 1971, .* got .*; set a later at"
        ):
            choose_cuts(events([0, 1]), SplitConfig(at=at))


def test_an_item_is_on_offer_from_its_creation_or_once_somebody_has_met_it() -> None:
    interactions = events([1.0, 3.0], "cb")
    assert on_offer(items(2, None, None), interactions, at_us(2)).tolist() == [True, False, True]


def test_every_window_needs_an_event_on_an_item_on_offer() -> None:
    cuts = [at_us(day) for day in (2, 4, 6)]
    check_windows(items(0, 0, 0), events([0, 1, 3, 5]), ["view"], cuts)
    gap = events([0, 1, 3, 7])
    wanted = r"none of view from 2025-01-05 .* to 2025-01-07 .* longer \[split\] horizon"
    with pytest.raises(DataError, match=wanted):
        check_windows(items(0, 0, 0), gap, ["view"], cuts)
    # The item of the second window is created after its start.
    with pytest.raises(DataError, match="on the 2 items on offer"):
        check_windows(items(5, 0, 0), events([0, 1, 3, 5], "bcba"), ["view"], cuts)


def test_a_window_in_which_a_single_item_is_on_offer_teaches_nothing() -> None:
    cuts = [at_us(day) for day in (2, 4, 6)]
    with pytest.raises(DataError, match="on the 1 items on offer"):
        check_windows(items(0, 9, 9), events([0, 3, 5], "a"), ["view"], cuts)


def test_windows_follow_each_other() -> None:
    cuts = choose_cuts(events([0.0, 29.5]), SplitConfig(horizon="5d", n_cuts=2))
    assert {end - start for start, end in pairwise(cuts)} == {at_us(5) - at_us(0)}
    assert np.all(np.diff(cuts) > 0)
