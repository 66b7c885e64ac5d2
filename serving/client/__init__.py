"""Typed clients of the service, blocking and asyncio, and the values that they send and receive."""

from recsys.answers import (
    Added,
    Annotation,
    Answer,
    Colour,
    Deleted,
    Event,
    Group,
    Guess,
    Identification,
    Item,
    ReadText,
    Reason,
    Response,
    Result,
    SearchMode,
    Verdict,
)
from recsys.catalogue.filters import Filters
from recsys.rules import Rules
from serving.client.admin import AdminClient, Arm, Bundles
from serving.client.aio import AsyncClient
from serving.client.messages import (
    Forgotten,
    Items,
    LiveField,
    LiveItem,
    LiveItems,
    LiveSelection,
    Recorded,
)
from serving.client.sync import Client

__all__ = [
    "Added",
    "AdminClient",
    "Annotation",
    "Answer",
    "Arm",
    "AsyncClient",
    "Bundles",
    "Client",
    "Colour",
    "Deleted",
    "Event",
    "Filters",
    "Forgotten",
    "Group",
    "Guess",
    "Identification",
    "Item",
    "Items",
    "LiveField",
    "LiveItem",
    "LiveItems",
    "LiveSelection",
    "ReadText",
    "Reason",
    "Recorded",
    "Response",
    "Result",
    "Rules",
    "SearchMode",
    "Verdict",
]
