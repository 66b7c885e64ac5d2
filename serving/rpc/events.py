"""From messages to the events that a call records; each value is checked here, once."""

from collections.abc import Sequence
from typing import Any

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import Event
from recsys.data.timestamps import from_us
from recsys.errors import InvalidArgumentError
from recsys.schema import MAX_AMOUNT
from serving.rpc.requests import check_count, read_amount, read_id, read_us

MAX_EVENTS = 1_000
# Clocks differ by seconds; an event further ahead is a mistake of the caller.
MAX_AHEAD_S = 300


def read_events(messages: Sequence[pb.Event], *, now_us: int) -> list[Event]:
    """Return events to record.

    Args:
        messages: Events of a request.
        now_us: Time of arrival in microseconds UTC, for events without a timestamp.

    Raises:
        InvalidArgumentError: If the events are missing or too many, or a field is wrong; the
            message has its index and name.
    """
    check_count("events", len(messages), at_least=1, at_most=MAX_EVENTS)
    return [
        _read_event(f"events[{index}]", message, now_us) for index, message in enumerate(messages)
    ]


def _read_event(name: str, message: pb.Event, now_us: int) -> Event:
    timestamp_us = now_us
    if message.HasField("timestamp"):
        timestamp_us = read_us(f"{name}.timestamp", message.timestamp)
        if timestamp_us > now_us + MAX_AHEAD_S * 1_000_000:
            raise InvalidArgumentError(
                f"{name}.timestamp must be at most {MAX_AHEAD_S} s in the future, got "
                f"{message.timestamp.ToJsonString()}"
            )
    return Event(
        read_id(f"{name}.user_id", message.user_id),
        read_id(f"{name}.item_id", message.item_id),
        read_id(f"{name}.kind", message.kind),
        from_us(timestamp_us),
        **_read_details(name, message),
    )


def _read_details(name: str, message: pb.Event) -> dict[str, Any]:
    """Return what an event has beside the fields by which it is known."""
    details: dict[str, Any] = {}
    if message.HasField("quantity"):
        details["quantity"] = read_amount(f"{name}.quantity", message.quantity)
    if message.HasField("value"):
        details["value"] = read_amount(f"{name}.value", message.value, at_least=-MAX_AMOUNT)
    if message.HasField("propensity"):
        details["propensity"] = message.propensity
        if not 0 < message.propensity <= 1:  # true for NaN
            raise InvalidArgumentError(
                f"{name}.propensity must be above 0 and at most 1, got {message.propensity}; leave "
                "it out where it is unknown"
            )
    if message.placement:
        details["placement"] = read_id(f"{name}.placement", message.placement)
    return details
