import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import OverloadedError
from serving.rpc import rates
from serving.rpc.rates import RateLimits


def is_taken(limits: RateLimits, client: str = "shop") -> bool:
    try:
        limits.take(client)
    except OverloadedError:
        return False
    return True


def test_a_burst_of_a_second_is_taken_and_then_the_rate() -> None:
    now = [0.0]
    limits = RateLimits(4, clock=lambda: now[0])

    assert [is_taken(limits) for _ in range(6)] == [True] * 4 + [False] * 2
    now[0] = 0.5
    assert [is_taken(limits) for _ in range(3)] == [True, True, False]
    assert is_taken(limits, "another")


def test_a_refusal_says_when_to_call_again() -> None:
    now = [0.0]
    limits = RateLimits(0.5, clock=lambda: now[0])
    limits.take("shop")
    with pytest.raises(OverloadedError, match=r"at most 0.5 calls a second") as caught:
        limits.take("shop")

    assert caught.value.retry_after_ms == 2_000
    now[0] = 2.0
    limits.take("shop")


@given(
    per_s=st.floats(0.1, 50),
    pauses=st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_over_any_time_no_more_are_taken_than_the_rate_and_a_burst(
    per_s: float, pauses: list[float]
) -> None:
    now = [0.0]
    limits = RateLimits(per_s, clock=lambda: now[0])
    taken = 0
    for pause in pauses:
        now[0] += pause
        taken += is_taken(limits)

    assert taken <= max(1.0, per_s) + per_s * now[0] + 1e-6


def test_memory_is_bounded_and_no_limit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_CLIENTS", 3)
    limits = RateLimits(1)
    for number in range(9):
        limits.take(f"client-{number}")
    assert len(limits._buckets) == 3

    unlimited = RateLimits(None)
    assert all(is_taken(unlimited) for _ in range(100))
