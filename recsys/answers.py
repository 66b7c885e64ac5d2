"""What callers send and receive, as plain values; shared with the client of the service."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Integral, Real
from typing import Literal, overload

from recsys.errors import InvalidArgumentError

SearchMode = Literal["hybrid", "vector", "lexical"]
Verdict = Literal["product", "group", "unsure", "unknown"]
MAX_K = 500
PRECISION_NOT_REACHED = "wanted_precision_not_reached"
WORDS_UNREAD = "words_unread"  # the extra ocr is not installed
CATEGORY_LEVELS = 4  # ranking ignores the levels of a category path below this depth


@dataclass(frozen=True)
class Event:
    """Something a user did with an item.

    Args:
        user_id: Any stable id, also of an anonymous session.
        item_id: Item of the catalogue.
        kind: view, click, cart, purchase, impression or any other word. It is kept in lower case
            and without blanks around it, as tables are read.
        timestamp: Moment of the event, with a time zone; the time of the call if None.
        quantity: Number of units.
        value: Money that changed hands.
        propensity: Probability with which the item was shown at its place, from its ``Result``.
        placement: Where on the shop's pages it happened, such as "home/carousel".
    """

    user_id: str
    item_id: str
    kind: str
    timestamp: datetime | None = None
    quantity: float = 1.0
    value: float | None = None
    propensity: float | None = None
    placement: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str):
            raise InvalidArgumentError(f"kind must be text, such as 'view', got {self.kind!r}")
        object.__setattr__(self, "kind", self.kind.strip().lower())


@dataclass(frozen=True)
class Item:
    """A product; everything but the id may be unknown.

    Args:
        item_id: The shop's id.
        title: Name as the shop shows it.
        description: Longer text.
        image: Where the shop keeps the picture; stored and returned, never fetched.
        category: Path, coarse to fine, or its text form such as "Kitchen > Mugs".
        price: Price in the shop's currency, at least 0.
        attributes: Names and values, such as {"colour": "red"}.
        available: Whether it can be bought now.
        created_at: Moment at which it entered the shop, with a time zone.
    """

    item_id: str
    title: str | None = None
    description: str | None = None
    image: str | None = None
    category: str | tuple[str, ...] = ()
    price: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    available: bool = True
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "category", read_path(self.category))


@dataclass(frozen=True)
class Reason:
    """Why an item is recommended, for people.

    Args:
        kind: The result's source, by which a storefront may choose words of its own.
        item_id: Item of the user's history that counts most for it; None if it rests on no item,
            such as "popular".
        text: The reason as an English sentence.
    """

    kind: str
    item_id: str | None
    text: str


@dataclass(frozen=True)
class Result:
    """One item of an answer.

    Args:
        item_id: The item.
        score: Higher comes first, unless rules say otherwise; scores of different calls cannot be
            compared.
        source: What speaks most for the item: a source of candidates (``docs/ranking.md``), or
            "similar", "search" or "photo".
        features: Names and values of what raised the score most, if the call asked to explain.
        reason: The source in words, if a call for a user asked to explain; else None.
        propensity: Probability with which the item stands at this place; 1 without exploration.
        probability: Probability that the user takes the item within one window
            (``docs/ranking.md``); None where it is unknown, as in answers that are not for a user.
    """

    item_id: str
    score: float
    source: str
    features: tuple[tuple[str, float], ...] = ()
    reason: Reason | None = None
    propensity: float = 1.0
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class Response:
    """What every response carries.

    Args:
        bundle_version: Hash of the bundle that answered.
        degraded: Reasons why the answer is less than it could be; empty for a full answer.
    """

    bundle_version: str
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer(Response, Sequence[Result]):
    """Items, best first; a sequence of results.

    >>> [result.item_id for result in answer], answer[0].score, len(answer)

    Args:
        results: The same results, as a tuple.
    """

    results: tuple[Result, ...]

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...

    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        """Return one result, or a tuple of them for a slice."""
        return self.results[index]

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.results)


@dataclass(frozen=True)
class Group:
    """The product on a photo, or the few that it may be.

    Args:
        item_ids: One product, or up to five siblings, most probable first.
        category: Path that they share, coarse to fine; empty if they share none.
        probability: Probability that the photo shows one of them.
    """

    item_ids: tuple[str, ...]
    category: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class Guess:
    """The value of an attribute of the product on a photo.

    Args:
        value: The value; None if the best guess is not probable enough.
        probability: Probability of the best guess, also where the value is None.
    """

    value: str | None
    probability: float


@dataclass(frozen=True)
class Colour:
    """A colour of the product on a photo.

    Args:
        name: A colour of ``vision.palette``.
        share: Share of the product that has it, above 0, up to 1.
    """

    name: str
    share: float


@dataclass(frozen=True)
class ReadText:
    """A line of letters that was read on a photo.

    Args:
        text: The line.
        probability: How sure the reader is of its letters, as it states it itself.
    """

    text: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Annotation(Response):
    """What a photo shows, as far as the bundle learned to tell.

    Probabilities are calibrated on photos of val, if training had some.

    Args:
        category: Path, coarse to fine, down to the last level that is probable enough; may be
            empty.
        category_probability: Probability of the last level of the path, or of the coarsest guess
            if the path is empty; None if the bundle learned no categories.
        attributes: Guess by attribute, for every attribute that the bundle learned.
        colours: Colours, the largest share first.
        words: Lines of letters, the highest letters first; empty if words were not asked for, or
            cannot be read (``WORDS_UNREAD`` in ``degraded``).
    """

    category: tuple[str, ...]
    category_probability: float | None
    attributes: Mapping[str, Guess]
    colours: tuple[Colour, ...]
    words: tuple[ReadText, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Identification(Response):
    """What is on a photo.

    ``degraded`` has ``PRECISION_NOT_REACHED`` where the bundle never names a product, because no
    threshold reached the wanted precision when it was trained.

    Args:
        known: Whether the product is in the catalogue, at the precision that the bundle was
            trained for.
        probability: Probability that the product is in the catalogue.
        candidates: Products, most probable first; their scores are probabilities, and those of
            the whole catalogue add up to ``probability``.
        verdict: "product" or "group" when the photo shows one product or one of a few; "unknown"
            when it is probably not in the catalogue, and "unsure" otherwise.
        product_group: The product, or the few that it may be; None for the last two verdicts.
        annotation: What ``Recommender.annotate`` answers for the photo; None from a service of an
            earlier release.
        similar: Items nearest to the photo that can be bought now, without those in
            ``product_group``; their scores are cosines.
        words: Lines read on the photo, the highest letters first; empty if the bundle does not read
            words, or cannot (``WORDS_UNREAD`` in ``degraded``).
    """

    known: bool
    probability: float
    candidates: tuple[Result, ...]
    verdict: Verdict
    product_group: Group | None = None
    annotation: Annotation | None = None
    similar: tuple[Result, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Added(Response):
    """How many items were added or replaced."""

    added: int


@dataclass(frozen=True, kw_only=True)
class Deleted(Response):
    """How many of the items were in the catalogue."""

    deleted: int


def check_k(k: int) -> None:
    """Raise if ``k`` is not a number of results that can be asked for.

    Raises:
        InvalidArgumentError: If it is not a whole number, or out of range; the message has the
            bounds.
    """
    whole = isinstance(k, Integral) and not isinstance(k, bool)
    if not (whole and 1 <= k <= MAX_K):
        raise InvalidArgumentError(f"k must be a whole number between 1 and {MAX_K}, got {k!r}")


def check_min_probability(value: float) -> None:
    """Raise if the lowest probability of a guess is not a probability.

    Raises:
        InvalidArgumentError: If it is not a number, or not from 0 to 1.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and 0.0 <= value <= 1.0):  # false for NaN
        raise InvalidArgumentError(f"min_probability must be from 0 to 1, got {value!r}")


def list_ids(name: str, ids: Iterable[str]) -> list[str]:
    """Return ids as a list.

    Args:
        name: Name of the argument, for the message.
        ids: Any iterable of ids.

    Raises:
        InvalidArgumentError: If ``ids`` is a single text, whose letters would be taken for ids, or
            if one of them is not a text.
    """
    if isinstance(ids, str | bytes):
        raise InvalidArgumentError(
            f"{name} must be a list of ids, got the text {ids!r}; pass [{ids!r}]"
        )
    if not isinstance(ids, Iterable):
        raise InvalidArgumentError(f"{name} must be a list of ids (text), got {ids!r}")
    listed = list(ids)
    for one in listed:
        if not isinstance(one, str):
            raise InvalidArgumentError(
                f"{name} must be a list of ids (text), got one of type {type(one).__name__}"
            )
    return listed


def read_path(category: str | Iterable[str]) -> tuple[str, ...]:
    """Return a category path, coarse to fine, as tables are read.

    Args:
        category: Levels of the path, or its text form: "Kitchen" or "Kitchen > Mugs".

    Raises:
        InvalidArgumentError: If it is neither.
    """
    levels = category.split(">") if isinstance(category, str) else category
    listed = list(levels) if isinstance(levels, Iterable) else [None]
    if not all(isinstance(level, str) for level in listed):
        raise InvalidArgumentError(
            f"category must be text such as 'Kitchen > Mugs', or a list of its levels, got "
            f"{category!r}"
        )
    return tuple(level.strip() for level in listed if level.strip())
