import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import Event
from recsys.data.timestamps import from_us
from serving.rpc.events import read_events


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (pb.Event(user_id="a", item_id="b"), r"events\[0\].kind must have 1 to 1024"),
        (pb.Event(user_id="a", kind="b"), r"events\[0\].item_id must have 1 to 1024"),
        (
            pb.Event(user_id="a", item_id="b", kind="c", quantity=-1),
            r"events\[0\].quantity must be a number from 0 to 1e.12, got -1",
        ),
        (
            pb.Event(user_id="a", item_id="b", kind="c", value=math.inf),
            r"events\[0\].value must be a number from -1e.12 to 1e.12, got inf",
        ),
        (
            pb.Event(user_id="a", item_id="b", kind="c", timestamp=Timestamp(seconds=301)),
            r"events\[0\].timestamp must be at most 300 s in the future, got 1970-01-01T00:05:01Z",
        ),
        *(
            (
                pb.Event(user_id="a", item_id="b", kind="c", propensity=wrong),
                rf"events\[0\].propensity must be above 0 and at most 1, got {wrong}; leave it out",
            )
            for wrong in (0.0, 1.5, math.nan)
        ),
        (
            pb.Event(user_id="a", item_id="b", kind="c", placement="ho\nme"),
            r"events\[0\].placement must not contain control characters",
        ),
    ],
)
def test_a_wrong_event_is_named(event: pb.Event, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_events([event], now_us=0)


def test_events_have_defaults_and_may_be_slightly_ahead() -> None:
    plain = pb.Event(user_id="a", item_id="b", kind="c")
    ahead = pb.Event(user_id="a", item_id="b", kind="c", timestamp=Timestamp(seconds=300))

    first, second = read_events([plain, ahead], now_us=5)

    assert first == Event("a", "b", "c", from_us(5))
    assert second.timestamp == from_us(300_000_000)


@pytest.mark.parametrize("count", [0, 1_001])
def test_a_call_has_some_events_and_not_too_many(count: int) -> None:
    with pytest.raises(ValueError, match=f"events must have 1 to 1000 entries, got {count}"):
        read_events([pb.Event()] * count, now_us=0)


def test_values_are_cleaned_as_those_of_a_table() -> None:
    message = pb.Event(user_id="u\t", item_id=" a", kind=" Purchase ", placement=" home ")

    (event,) = read_events([message], now_us=5)

    assert event == Event("u", "a", "purchase", from_us(5), placement="home")
