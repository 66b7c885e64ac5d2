import hashlib

import numpy as np
import pytest

from serving.engine import split as module
from serving.engine.split import Split, user_hash, user_place

USERS = [f"user-{number}" for number in range(4_000)]


def test_the_hash_of_a_user_is_that_of_the_documentation() -> None:
    digest = hashlib.blake2b(b"3:newann", digest_size=8).hexdigest()

    assert f"{user_hash('ann', 'new'):016x}" == digest


def test_users_are_spread_evenly_and_anew_in_each_experiment() -> None:
    one, other = (np.array([user_place(user, name) for user in USERS]) for name in ("a", "b"))

    for places in (one, other):
        assert np.histogram(places, 10, (0, 1))[0] == pytest.approx(400, abs=80)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_a_user_stays_with_the_loaded_bundle_when_its_share_grows() -> None:
    small, large = Split("old", "new", 0.1), Split("old", "new", 0.4)
    in_small = {user for user in USERS if small.choose(user) == "new"}

    assert all(large.choose(user) == "new" for user in in_small)
    assert len(in_small) == pytest.approx(400, abs=80)


def test_each_user_counts_once_and_the_numbers_fit_the_share() -> None:
    split = Split("old", "new", 0.25)
    for user in USERS * 2:
        split.choose(user)

    assert sum(split.users.values()) == len(USERS)
    p = split.sample_ratio_p()
    assert p is not None
    assert p > 0.001
    split.users["new"] -= 150  # the calls of some users fail under the new bundle
    p = split.sample_ratio_p()
    assert p is not None
    assert p < 0.001


def test_a_share_of_all_or_no_users_has_no_ratio() -> None:
    for share, version in ((0.0, "old"), (1.0, "new")):
        split = Split("old", "new", share)
        assert {split.choose(user) for user in USERS[:20]} == {version}
        assert split.sample_ratio_p() is None


def test_memory_is_bounded_and_counting_ends_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="serving.engine.split")
    monkeypatch.setattr(module, "MAX_USERS", 10)
    split = Split("old", "new", 0.5)
    for user in [*USERS[:12], USERS[0], USERS[11]]:
        split.choose(user)

    assert len(split._seen) == 10
    assert sum(split.users.values()) == 10
    assert len(caplog.messages) == 13  # the first user was forgotten, and is logged again
