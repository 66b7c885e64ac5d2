from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from recsys.config import SplitConfig
from recsys.data.interactions import Interactions, build_interactions
from recsys.errors import DataError
from recsys.training.cuts import (
    NEVER_US,
    asked_from,
    check_windows,
    choose_cuts,
    fold_of,
    held_out_users,
    on_offer,
    window_days,
)

START = datetime(2025, 1, 1, tzinfo=UTC)
IDS = ("a", "b", "c")
VIEWS = ("view",)
FOREVER = int(np.iinfo(np.int64).max)


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


def of_users(*days: list[float]) -> Interactions:
    """Return views by the users u00, u01, ... on these days."""
    rows = [
        {"user_id": f"u{user:02}", "item_id": IDS[n % 3], "timestamp": START + timedelta(days=day)}
        for user, own in enumerate(days)
        for n, day in enumerate(own)
    ]
    table = pl.DataFrame(rows).with_columns(kind=pl.lit("view"), quantity=pl.lit(1.0))
    return build_interactions(table, IDS)


def items(*created: int | None) -> pl.DataFrame:
    """Return the three items, created on these days."""
    times = [None if day is None else START + timedelta(days=day) for day in created]
    return pl.DataFrame(
        {"item_id": IDS, "created_at": times},
        schema_overrides={"created_at": pl.Datetime("us", "UTC")},
    )


def test_cuts_are_whole_horizons_before_the_split() -> None:
    cuts = choose_cuts(events([0.0, 29.5]), VIEWS, SplitConfig(horizon="5d", n_cuts=3))
    assert cuts == tuple(at_us(day) for day in (10, 15, 20, 25))


def test_events_that_begin_too_late_are_refused_with_the_longest_horizon_that_fits() -> None:
    interactions = events([0.0, 29.5])
    for split in (SplitConfig(horizon="10d"), SplitConfig(horizon="10d", at=START + timedelta(30))):
        with pytest.raises(DataError, match=r"first of 3 cuts of 10d, .* as the first") as caught:
            choose_cuts(interactions, VIEWS, split)
        longest = str(caught.value).partition("at most ")[2].partition(",")[0]
        assert (
            len(choose_cuts(interactions, VIEWS, split.model_copy(update={"horizon": longest})))
            == 4
        )
    with pytest.raises(DataError, match="at most 5h, lower n_cuts"):
        choose_cuts(events([0.0, 0.5]), VIEWS, SplitConfig(horizon="10d"))


def test_a_split_before_all_events_names_no_horizon() -> None:
    with pytest.raises(DataError, match="as the first; lower n_cuts, set a later at") as caught:
        choose_cuts(events([0.0, 29.5]), VIEWS, SplitConfig(at=START - timedelta(1)))
    assert "at most" not in str(caught.value)


def test_a_split_before_the_earliest_event_that_is_read_is_refused() -> None:
    for at in (datetime(1, 1, 1), datetime(1970, 12, 31, tzinfo=UTC)):
        with pytest.raises(
            DataError, match=r"at must not be before 1971, .* got .*; set a later at"
        ):
            choose_cuts(events([0, 1]), VIEWS, SplitConfig(at=at))


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
    cuts = choose_cuts(events([0.0, 29.5]), VIEWS, SplitConfig(horizon="5d", n_cuts=2))
    assert {end - start for start, end in pairwise(cuts)} == {at_us(5) - at_us(0)}
    assert np.all(np.diff(cuts) > 0)


def test_leave_one_out_cuts_each_user_before_the_last_times_of_their_own() -> None:
    """The first user has four times, as the last two events are of one moment; the second two."""
    interactions = of_users([0, 1, 2, 5, 5], [3, 8], [4])
    split = SplitConfig(protocol="leave_one_out", n_cuts=2)
    cuts = np.stack([np.asarray(one) for one in choose_cuts(interactions, VIEWS, split)])
    assert cuts[:, 0].tolist() == [at_us(1), at_us(2), at_us(5)]
    assert cuts[:, 1].tolist() == [at_us(8)] * 3  # one time remains before the first cut
    assert cuts[:, 2].tolist() == [FOREVER] * 3


def test_by_users_a_fifth_of_the_times_of_each_is_held_out() -> None:
    interactions = of_users([float(day) for day in range(10)], [float(day) for day in range(11)])
    split = SplitConfig(protocol="user_time", n_cuts=2)
    cuts = np.stack([np.asarray(one) for one in choose_cuts(interactions, VIEWS, split)])
    assert cuts[:, 0].tolist() == [at_us(day) for day in (4, 6, 8)]
    assert cuts[:, 1].tolist() == [at_us(day) for day in (2, 5, 8)]


TEN_USERS = of_users(*([float(day) for day in range(10)],) * 10)


def fold_split(fold: int = 0, folds: int = 3) -> SplitConfig:
    return SplitConfig(protocol="user_fold", folds=folds, fold=fold, n_cuts=2)


def test_a_fold_of_the_users_is_before_no_cut_and_the_others_end_before_the_split() -> None:
    moments = choose_cuts(TEN_USERS, VIEWS, fold_split())
    cuts = np.stack([np.asarray(one) for one in moments])
    held_out = held_out_users(moments)
    assert held_out is not None
    assert held_out.tolist() == [fold_of(one, 3, 0) == 0 for one in TEN_USERS.user_ids]
    assert 0 < held_out.sum() < 10
    assert (cuts[:, held_out] == NEVER_US).all()
    for own in cuts[:, ~held_out].T:
        assert own.tolist() == [at_us(6), at_us(8), FOREVER]
    tested = np.asarray(asked_from(TEN_USERS, moments))
    assert (tested == np.where(held_out, at_us(8), FOREVER)).all()


def test_every_user_is_in_one_fold_whoever_else_is_there() -> None:
    many, few = (of_users(*([0.0, 1.0, 2.0],) * n_users) for n_users in (40, 30))

    def folds(interactions: Interactions, seed: int) -> list[int]:
        found = [
            held_out_users(choose_cuts(interactions, VIEWS, fold_split(fold), seed=seed))
            for fold in range(3)
        ]
        held_out = np.stack([one for one in found if one is not None])
        assert (held_out.sum(axis=0) == 1).all()
        return np.argmax(held_out, axis=0).tolist()

    assert folds(few, 0) == folds(many, 0)[:30]
    assert folds(many, 0) != folds(many, 1)


def test_by_other_protocols_no_user_is_held_out() -> None:
    for protocol in ("time", "user_time", "leave_one_out"):
        split = SplitConfig(protocol=protocol, horizon="1d", n_cuts=2)
        moments = choose_cuts(TEN_USERS, VIEWS, split)
        assert held_out_users(moments) is None
        np.testing.assert_array_equal(np.asarray(asked_from(TEN_USERS, moments)), moments[-1])


def test_a_fold_that_nobody_can_be_asked_in_or_that_holds_all_is_refused() -> None:
    once = of_users(*([3.0],) * 10)
    wanted = r"fold 0 of 3 .* two times or more, .* got 0 such users among \d of 10; set another"
    with pytest.raises(DataError, match=wanted):
        choose_cuts(once, VIEWS, fold_split())
    alone = of_users([0.0, 1.0, 2.0])
    (fold,) = {fold_of(one, 2, 0) for one in alone.user_ids}
    with pytest.raises(DataError, match="leave users to learn from, got 1 such users among 1 of 1"):
        choose_cuts(alone, VIEWS, fold_split(fold, folds=2))


def test_the_window_is_that_of_the_users_who_are_learned_from() -> None:
    moments = choose_cuts(TEN_USERS, VIEWS, fold_split())
    held_out = held_out_users(moments)
    assert held_out is not None
    late = TEN_USERS.timestamps_us + held_out[TEN_USERS.user_rows] * (at_us(99) - at_us(0))
    moved = replace(TEN_USERS, timestamps_us=late)
    assert window_days(moved, moments) == window_days(TEN_USERS, moments)


def test_the_automatic_horizon_holds_the_last_tenth_of_the_events() -> None:
    """The last 20 of 200 views begin on day 90, 9 days and 6 hours before the last of them."""
    slow = [float(day) for day in range(100)]
    interactions = of_users(slow, [day + 0.25 for day in slow])
    cuts = choose_cuts(interactions, VIEWS, SplitConfig(protocol="time"))
    assert {end - start for start, end in pairwise(cuts)} == {at_us(9) - at_us(0)}
    assert cuts[-1] == at_us(91)
    assert window_days(interactions, cuts) == 9.0


def test_where_nobody_comes_back_a_fifth_of_each_user_is_held_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each of 40 users comes for one day, one after the other."""
    visits = [[user + n / 10 for n in range(5)] for user in range(40)]
    cuts = choose_cuts(of_users(*visits), VIEWS, SplitConfig())
    assert "the last fifth of each user's events is held out" in caplog.text
    (split,) = cuts[-1:]
    assert np.asarray(split).tolist() == [at_us(user + 0.4) for user in range(40)]


def test_where_people_come_back_the_last_events_of_all_are_held_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    days = [float(day) for day in range(100)]
    cuts = choose_cuts(of_users(days, days, days), VIEWS, SplitConfig())
    assert all(isinstance(cut, int) for cut in cuts)
    assert not caplog.records
