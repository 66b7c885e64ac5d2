"""How a list is made from ranked items; light enough for the client of the service to import."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from datetime import datetime
from itertools import combinations
from numbers import Integral, Real

from recsys.answers import CATEGORY_LEVELS, MAX_K, list_ids, read_path
from recsys.errors import InvalidArgumentError

MAX_RULES = 100  # of one kind
MAX_IDS = 1_000  # in one rule
_STRICT = {"extra": "forbid"}  # for pydantic, which reads rules from files


@dataclass(frozen=True)
class Period:
    """When a rule is in force: from ``since`` on and before ``until``, where they are given.

    Args:
        since: First moment, with a time zone.
        until: Moment after the last, with a time zone.

    Raises:
        InvalidArgumentError: If a moment has no time zone, or ``since`` is not before ``until``.
    """

    __pydantic_config__ = _STRICT

    _: KW_ONLY
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and not (isinstance(moment, datetime) and moment.tzinfo):
                raise InvalidArgumentError(
                    f"{name} must be a moment with a time zone, such as 2026-12-01T00:00:00Z, got "
                    f"{moment!s}"
                )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise InvalidArgumentError(
                f"since must be before until, got {self.since} and {self.until}"
            )

    def holds(self, now: datetime) -> bool:
        """Return whether the rule is in force at a moment."""
        return (self.since is None or self.since <= now) and (
            self.until is None or now < self.until
        )

    def overlaps(self, other: "Period") -> bool:
        """Return whether there is a moment at which both are in force."""
        starts = [one.since for one in (self, other) if one.since is not None]
        ends = [one.until for one in (self, other) if one.until is not None]
        return not starts or not ends or max(starts) < min(ends)


@dataclass(frozen=True)
class Pin(Period):
    """One item at one position.

    Args:
        item_id: The item.
        position: Place in the list, from 1 on.
    """

    __pydantic_config__ = _STRICT

    item_id: str
    position: int

    def __post_init__(self) -> None:
        super().__post_init__()
        list_ids("item_id", [self.item_id])
        _check("position", self.position, 1, MAX_K, whole=True)


@dataclass(frozen=True)
class Selection(Period):
    """The items that satisfy all of these conditions.

    Args:
        item_ids: Ids, of which an item has one.
        category: First parts of the category path, coarse to fine, or their text form such as
            "Apparel > Shoes".
        attributes: Values that an item must have.

    Raises:
        InvalidArgumentError: If a condition is missing, or as for ``Period``.
    """

    __pydantic_config__ = _STRICT

    item_ids: Sequence[str] = ()
    category: str | tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "item_ids", tuple(list_ids("item_ids", self.item_ids)))
        object.__setattr__(self, "category", read_path(self.category))
        if len(self.item_ids) > MAX_IDS:
            raise InvalidArgumentError(
                f"item_ids must have at most {MAX_IDS} ids, got {len(self.item_ids)}"
            )
        if not (self.item_ids or self.category or self.attributes):
            raise InvalidArgumentError(
                "item_ids, category or attributes must say which items a rule is for, got none of "
                "them, which would be every item"
            )


@dataclass(frozen=True)
class Shift(Selection):
    """Items that are moved, by a factor of their place.

    Args:
        strength: Factor above 1. At 2, a boosted item in place 10 stands as if it were in place 5,
            and a buried one as if it were in place 20.
    """

    __pydantic_config__ = _STRICT

    strength: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("strength", self.strength, 1, 1_000)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a list is made from ranked items; the default is their order. See docs/rules.md.

    >>> Rules(diversity=0.3, pin=[Pin("item-0042", 1)], block=[Selection(category="Gifts")])

    Args:
        diversity: How much an item is held back that resembles those already in the list, from 0,
            not at all, to 1, where nothing else counts.
        max_per_category: Largest number of items of one category in a list; None is any number.
        category_level: Level of the category path that is counted by, 1 is the coarsest.
        popularity_penalty: How far popular items are moved back: their place is multiplied by the
            number of their users, plus 1, to this power. At 0.1, that is by 2 for 1,000 users.
        explore: Share of the places that show an item from further down, drawn at random.
        seed: Random seed of that draw; None draws differently each time.
        pin: Items at fixed positions.
        boost: Items that are moved forward.
        bury: Items that are moved back.
        block: Items that are not shown.

    Raises:
        InvalidArgumentError: If a value is out of range, or two rules contradict each other; the
            message names both.
    """

    __pydantic_config__ = _STRICT

    diversity: float = 0.0
    max_per_category: int | None = None
    category_level: int | None = None
    popularity_penalty: float = 0.0
    explore: float = 0.0
    seed: int | None = None
    pin: Sequence[Pin] = ()
    boost: Sequence[Shift] = ()
    bury: Sequence[Shift] = ()
    block: Sequence[Selection] = ()

    def __post_init__(self) -> None:
        for name in ("diversity", "popularity_penalty", "explore"):
            _check(name, getattr(self, name), 0, 1)
        for name, high in (
            ("max_per_category", MAX_K),
            ("category_level", CATEGORY_LEVELS),
            ("seed", 2**63 - 1),
        ):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0 if name == "seed" else 1, high, whole=True)
        if (self.max_per_category is None) != (self.category_level is None):
            raise InvalidArgumentError(
                "max_per_category and category_level must be given together, got "
                f"{self.max_per_category} and {self.category_level}; level 1 counts by the first "
                "part of the category path"
            )
        for name, kind in (("pin", Pin), ("boost", Shift), ("bury", Shift), ("block", Selection)):
            object.__setattr__(self, name, tuple(_rules(name, kind, getattr(self, name))))
        _check_pins(self.pin)
        _check_blocked(self.pin, self.block)

    @property
    def item_ids(self) -> list[str]:
        """Ids of all items that a rule names."""
        selections = (*self.boost, *self.bury, *self.block)
        named = [item_id for one in selections for item_id in one.item_ids]
        return [*(one.item_id for one in self.pin), *named]

    def without_exploration(self) -> "Rules":
        """Return these rules without exploration: what they do the same every time."""
        return replace(self, explore=0.0)

    def summary(self) -> str:
        """Return the rules in one line, such as "diversity 0.3, 2 of pin"; empty for the default.

        Of the rules with dates, it has the numbers, in force or not.
        """
        found = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                many = isinstance(value, tuple)
                found.append(f"{len(value)} of {one.name}" if many else f"{one.name} {value:g}")
        return ", ".join(found)


def _rules(name: str, kind: type[Period], values: Sequence[Period]) -> Iterator[Period]:
    """Yield the rules of one kind."""
    if not isinstance(values, list | tuple) or len(values) > MAX_RULES:
        raise InvalidArgumentError(
            f"{name} must be a list of at most {MAX_RULES} {kind.__name__}, got {values!r:.200}"
        )
    for index, one in enumerate(values):
        if type(one) is not kind:
            raise InvalidArgumentError(f"{name}[{index}] must be a {kind.__name__}, got {one!r}")
        yield one


def _check_pins(pins: Sequence[Pin]) -> None:
    for (first, one), (second, other) in combinations(enumerate(pins), 2):
        if not one.overlaps(other):
            continue
        what = None
        if one.item_id == other.item_id:
            what = f"item {one.item_id!r} at {one.position} and {other.position}"
        elif one.position == other.position:
            what = f"items {one.item_id!r} and {other.item_id!r} at {one.position}"
        if what is not None:
            raise InvalidArgumentError(
                f"pin[{first}] and pin[{second}] put {what} at the same time; remove one, or give "
                "them dates that do not overlap"
            )


def _check_blocked(pins: Sequence[Pin], blocks: Sequence[Selection]) -> None:
    for number, pin in enumerate(pins):
        for index, block in enumerate(blocks):
            named = pin.item_id in block.item_ids and not (block.category or block.attributes)
            if named and pin.overlaps(block):
                raise InvalidArgumentError(
                    f"pin[{number}] shows item {pin.item_id!r} and block[{index}] hides it at the "
                    "same time; remove one, or give them dates that do not overlap"
                )


def _check(name: str, value: object, low: int, high: int, *, whole: bool = False) -> None:
    kind, word = (Integral, "a whole number") if whole else (Real, "a number")
    known = isinstance(value, kind) and not isinstance(value, bool)
    if not (known and math.isfinite(value) and low <= value <= high):  # type: ignore[arg-type,operator]
        raise InvalidArgumentError(f"{name} must be {word} from {low} to {high}, got {value!r}")


NO_RULES = Rules()
