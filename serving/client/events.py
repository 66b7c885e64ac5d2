"""Requests that record events, from the client's values."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import Event
from recsys.errors import InvalidArgumentError
from serving.client.fields import build, build_timestamp, list_of

EVENTS_AT_ONCE = 500


def build_events(events: Sequence[Event], *, now: datetime) -> pb.RecordEventsRequest:
    """Return a request to record events.

    Args:
        events: What happened.
        now: Taken by events without a time, so that a repeated request repeats the same events.

    Raises:
        InvalidArgumentError: If one is anything but an ``Event``.
    """
    events = list_of("events", Event, events)
    return pb.RecordEventsRequest(
        events=[_build_event(f"events[{index}].", one, now) for index, one in enumerate(events)]
    )


class EventBatches:
    """Requests to record a series of events, in their order, of ``EVENTS_AT_ONCE`` each.

    Events without a time take that at which their request is made. Where the series breaks off,
    because it raises or has something else than an ``Event``, the requests end before that.

    Args:
        events: What happened, perhaps without an end that is known.

    Attributes:
        error: What broke the series off; None where it came to its end.

    Raises:
        InvalidArgumentError: If ``events`` is not a series.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        if not isinstance(events, Iterable) or isinstance(events, str | bytes):
            raise InvalidArgumentError(f"events must be a series of Event records, got {events!r}")
        self._events = iter(events)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pb.RecordEventsRequest]:
        try:
            while batch := list(islice(self._events, EVENTS_AT_ONCE)):
                yield build_events(batch, now=datetime.now(UTC))
        except Exception as error:
            # gRPC would call it a lost connection.
            self.error = error


def _build_event(where: str, event: Event, now: datetime) -> pb.Event:
    return build(
        pb.Event,
        where,
        user_id=event.user_id,
        item_id=event.item_id,
        kind=event.kind,
        timestamp=build_timestamp(f"{where}timestamp", event.timestamp or now),
        quantity=event.quantity,
        value=event.value,
        propensity=event.propensity,
        placement="" if event.placement is None else event.placement,
    )
