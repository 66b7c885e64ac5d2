"""Responses that only the service gives; ``recsys.answers`` has those that a bundle gives, too."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from recsys.answers import Item, Response

LiveSelection = Literal["superseded", "all"]


@dataclass(frozen=True, kw_only=True)
class Recorded(Response):
    """How many events were new, and how many were stored already."""

    recorded: int
    duplicates: int


@dataclass(frozen=True)
class LiveField:
    """A field of an item that a caller changed.

    Args:
        name: A column of the items table, or "picture".
        changed_at: When it was changed.
        counts: Whether the change is newer than the bundle's table, and served.
    """

    name: str
    changed_at: datetime
    counts: bool


@dataclass(frozen=True)
class LiveItem:
    """What callers changed of an item: the live record.

    Args:
        item_id: The item.
        deleted: Whether the record leaves the item out of all answers.
        written_at: When it was written; None if an earlier release wrote it and the time is not
            known.
        bundle_version: Bundle that the writing replica served; empty for an earlier release.
        counts: Whether anything of the record counts; if not, the item is served as the bundle has
            it.
        fields: The changed fields, by name.
    """

    item_id: str
    deleted: bool
    written_at: datetime | None
    bundle_version: str
    counts: bool
    fields: tuple[LiveField, ...]


@dataclass(frozen=True, kw_only=True)
class LiveItems(Response):
    """A page of live records, in no order.

    Args:
        items: The records; one that changes meanwhile may come on two pages.
        next_page_token: Token of the following page; empty on the last page.
    """

    items: tuple[LiveItem, ...]
    next_page_token: str


@dataclass(frozen=True, kw_only=True)
class Forgotten(Response):
    """How many live records were removed."""

    forgotten: int


@dataclass(frozen=True, kw_only=True)
class Items(Response):
    """Stored records, in the order asked."""

    items: tuple[Item, ...]
