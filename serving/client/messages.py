"""What the client sends and receives, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

SearchMode = Literal["hybrid", "vector", "lexical"]
Verdict = Literal["product", "group", "unsure", "unknown"]


@dataclass(frozen=True)
class Filters:
    """Which items may be answered; the default is every available one.

    Args:
        category: A prefix of the category path, coarse to fine.
        price_min: Lowest price, inclusive; items without a price do not pass.
        price_max: Highest price, inclusive; items without a price do not pass.
        attributes: Values that an item must have.
        available_only: Leave out items that cannot be bought now.
    """

    category: tuple[str, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    available_only: bool = True


@dataclass(frozen=True)
class Event:
    """Something a user did with an item.

    Args:
        user_id: Any stable id, also of an anonymous session.
        item_id: An item of the catalogue.
        kind: view, click, cart, purchase, ...; one that the bundle was trained on.
        timestamp: When, with a time zone; the time of the call if None.
        quantity: Units.
        value: Money.
    """

    user_id: str
    item_id: str
    kind: str
    timestamp: datetime | None = None
    quantity: float = 1.0
    value: float | None = None


@dataclass(frozen=True)
class Item:
    """A product; all but the id may be unknown.

    Args:
        item_id: The shop's id.
        title: Name as the shop shows it.
        description: Longer text.
        image: Where the shop keeps the picture; stored and returned, never fetched.
        category: Path, coarse to fine.
        price: At least 0.
        attributes: Such as {"colour": "red"}.
        available: Whether it can be bought now.
        created_at: When it came into the shop, with a time zone.
    """

    item_id: str
    title: str | None = None
    description: str | None = None
    image: str | None = None
    category: tuple[str, ...] = ()
    price: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    available: bool = True
    created_at: datetime | None = None


@dataclass(frozen=True)
class Result:
    """One item of an answer.

    Args:
        item_id: The item.
        score: Higher comes first; scores of different calls do not compare.
        source: Why it is here, in one word.
        features: What raised the score most, where the call asked to explain.
    """

    item_id: str
    score: float
    source: str
    features: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Response:
    """What every response carries.

    Args:
        bundle_version: Hash of the bundle that answered.
        degraded: Why the answer is less than it could be; empty when it is not.
    """

    bundle_version: str
    degraded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer(Response):
    """Items, best first."""

    results: tuple[Result, ...]


@dataclass(frozen=True)
class Group:
    """The product on a photo, or the few that it may be.

    Args:
        item_ids: One product, or a few siblings, most probable first.
        category: The path that they share, coarse to fine; empty if they share none.
        probability: That the photo shows one of them.
    """

    item_ids: tuple[str, ...]
    category: tuple[str, ...]
    probability: float


@dataclass(frozen=True, kw_only=True)
class Identification(Response):
    """What is on a photo.

    Args:
        known: Whether the product is in the catalogue, at the precision that the bundle was
            trained for.
        probability: That it is.
        candidates: Products, most probable first; scores are probabilities, and those of all
            products add up to ``probability``.
        verdict: A product, one of a group, not sure enough to say, or probably not in the
            catalogue.
        answer: What can be said at the wanted precision; None if nothing can.
    """

    known: bool
    probability: float
    candidates: tuple[Result, ...]
    verdict: Verdict
    answer: Group | None


@dataclass(frozen=True, kw_only=True)
class Recorded(Response):
    """How many events were new, and how many were there already."""

    recorded: int
    duplicates: int


@dataclass(frozen=True, kw_only=True)
class Upserted(Response):
    """How many items were stored."""

    upserted: int


@dataclass(frozen=True, kw_only=True)
class Deleted(Response):
    """How many of the items were there."""

    deleted: int


@dataclass(frozen=True, kw_only=True)
class Items(Response):
    """Stored records, in the order asked."""

    items: tuple[Item, ...]
