"""Typed clients of the service, blocking and asyncio, and the messages that they speak."""

from serving.client.aio import AsyncClient
from serving.client.messages import (
    Answer,
    Deleted,
    Event,
    Filters,
    Group,
    Identification,
    Item,
    Items,
    Recorded,
    Response,
    Result,
    SearchMode,
    Upserted,
    Verdict,
)
from serving.client.sync import Client

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Deleted",
    "Event",
    "Filters",
    "Group",
    "Identification",
    "Item",
    "Items",
    "Recorded",
    "Response",
    "Result",
    "SearchMode",
    "Upserted",
    "Verdict",
]
