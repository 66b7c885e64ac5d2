"""Responses that only the service gives; ``recsys.answers`` has those that a bundle gives, too."""

from dataclasses import dataclass

from recsys.answers import Item, Response


@dataclass(frozen=True, kw_only=True)
class Recorded(Response):
    """How many events were new, and how many were stored already."""

    recorded: int
    duplicates: int


@dataclass(frozen=True, kw_only=True)
class Items(Response):
    """Stored records, in the order asked."""

    items: tuple[Item, ...]
