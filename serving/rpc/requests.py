"""From protobuf messages to the values of the library; each value is checked here, once."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import recommender_pb2 as pb
from recsys.answers import SearchMode, check_k, check_min_probability
from recsys.catalogue.filters import Filters
from recsys.data.ids import trim_id
from recsys.data.timestamps import from_us, to_us
from recsys.errors import InvalidArgumentError, InvalidImageError
from recsys.rules import Pin, Rules, Selection, Shift
from recsys.schema import (
    CONTROL_CHARACTER,
    LATEST_ITEM,
    MAX_AMOUNT,
    MAX_ID_CHARACTERS,
    MAX_PARTS,
    MAX_TEXT_CHARACTERS,
)
from serving.state.items import NewItem

M = TypeVar("M")
T = TypeVar("T")

MAX_CANDIDATES = 1_000
MAX_UPSERTS = 100
MAX_ITEM_IDS = 1_000
PAGE_SIZE = 100
_LIVE_SELECTIONS: "dict[pb.LiveSelection.ValueType, Literal['superseded', 'all']]" = {
    pb.LIVE_SELECTION_SUPERSEDED: "superseded",
    pb.LIVE_SELECTION_ALL: "all",
}
_SEARCH_MODES: "dict[pb.SearchMode.ValueType, SearchMode]" = {
    pb.SEARCH_MODE_UNSPECIFIED: "hybrid",
    pb.SEARCH_MODE_HYBRID: "hybrid",
    pb.SEARCH_MODE_VECTOR: "vector",
    pb.SEARCH_MODE_LEXICAL: "lexical",
}


def read_id(name: str, value: str) -> str:
    """Return an id without the blanks around it, as tables are read.

    Raises:
        InvalidArgumentError: If the id is empty or too long, or contains a control character.
    """
    value = trim_id(value)
    if not 1 <= len(value) <= MAX_ID_CHARACTERS:
        raise InvalidArgumentError(
            f"{name} must have 1 to {MAX_ID_CHARACTERS} characters, got {len(value)}"
        )
    if re.search(CONTROL_CHARACTER, value):
        raise InvalidArgumentError(f"{name} must not contain control characters, got {value!r}")
    return value


def read_ids(name: str, values: Sequence[str], *, at_least: int, at_most: int) -> list[str]:
    """Return ids, distinct and in their order.

    Raises:
        InvalidArgumentError: If there are too few or too many ids, or an id is repeated, empty or
            too long.
    """
    check_count(name, len(values), at_least=at_least, at_most=at_most)
    ids = [read_id(f"{name}[{index}]", value) for index, value in enumerate(values)]
    if len(set(ids)) < len(ids):
        repeated = next(value for value in ids if ids.count(value) > 1)
        raise InvalidArgumentError(f"{name} must be distinct, got {repeated!r} more than once")
    return ids


def read_k(k: int) -> int:
    """Return a number of results; errors as in the library."""
    check_k(k)
    return k


def read_min_probability(message: pb.AnnotateRequest) -> float:
    """Return the lowest probability of a guess that is filled in; errors as in the library."""
    value = message.min_probability if message.HasField("min_probability") else 0.5
    check_min_probability(value)
    return value


def read_now(message: pb.RecommendRequest | pb.RankRequest) -> datetime | None:
    """Return the ``now`` of a request; None where it has none, which is the time of its answer.

    Raises:
        InvalidArgumentError: If the timestamp is out of range.
    """
    return from_us(read_us("now", message.now)) if message.HasField("now") else None


def read_us(name: str, value: Timestamp) -> int:
    """Return a time as microseconds UTC.

    Raises:
        InvalidArgumentError: If the timestamp is outside the years 1 to 9999, or its nanoseconds
            are not between 0 and 999,999,999.
    """
    try:
        moment = value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError(
            f"{name} must be a time of the years 1 to 9999, got {value.seconds} s and "
            f"{value.nanos} ns since 1970"
        ) from error
    return to_us(name, moment)


def read_image(name: str, data: bytes, *, max_bytes: int) -> bytes:
    """Return the bytes of an image; decoding them later shows whether they are readable.

    Raises:
        InvalidImageError: If the bytes are missing or too many.
    """
    if not 1 <= len(data) <= max_bytes:
        raise InvalidImageError(f"{name} must have 1 to {max_bytes} bytes, got {len(data)}")
    return data


def read_filters(message: pb.Filters) -> Filters:
    """Return which items an answer may contain.

    Raises:
        InvalidArgumentError: If a bound is not a price, the bounds cross, or there are too many
            category levels or attributes.
    """
    check_count("filters.category", len(message.category), at_least=0, at_most=MAX_PARTS)
    check_count("filters.attributes", len(message.attributes), at_least=0, at_most=MAX_PARTS)
    bounds = [
        read_amount(f"filters.{name}", getattr(message, name)) if message.HasField(name) else None
        for name in ("price_min", "price_max")
    ]
    low, high = bounds
    return Filters(
        category=tuple(message.category),
        price_min=low,
        price_max=high,
        attributes=dict(message.attributes),
        available_only=not message.include_unavailable,
    )


def read_rules(message: pb.Rules) -> Rules:
    """Return the rules of a request.

    Raises:
        InvalidArgumentError: If a rule makes no sense, or two contradict each other; the message
            names them.
    """
    whole = {
        name: getattr(message, name) if message.HasField(name) else None
        for name in ("max_per_category", "category_level", "seed")
    }
    with _naming("rules."):
        return Rules(
            diversity=message.diversity,
            popularity_penalty=message.popularity_penalty,
            explore=message.explore,
            pin=_read_each("pin", message.pin, _read_pin),
            boost=_read_each("boost", message.boost, _read_shift),
            bury=_read_each("bury", message.bury, _read_shift),
            block=_read_each("block", message.block, _read_selection),
            **whole,
        )


def read_search_mode(mode: "pb.SearchMode.ValueType") -> SearchMode:
    """Return how to search.

    Raises:
        InvalidArgumentError: If the mode is unknown to this release.
    """
    if mode not in _SEARCH_MODES:
        raise InvalidArgumentError(
            f"mode must be one of {', '.join(pb.SearchMode.keys())}, got {mode}"
        )
    return _SEARCH_MODES[mode]


def read_upserts(messages: Sequence[pb.ItemUpsert], *, max_image_bytes: int) -> list[NewItem]:
    """Return items to store.

    Args:
        messages: Items of a request.
        max_image_bytes: Largest picture.

    Raises:
        InvalidArgumentError: If the items are missing or too many, or a field is wrong; the message
            has its index and name.
        InvalidImageError: If a picture is too large.
    """
    ids = read_ids(
        "items", [message.item.item_id for message in messages], at_least=1, at_most=MAX_UPSERTS
    )
    return [
        NewItem(
            {"item_id": item_id, **_read_fields(f"items[{index}]", message.item)},
            _read_picture(f"items[{index}].picture", message, max_image_bytes),
        )
        for index, (item_id, message) in enumerate(zip(ids, messages, strict=True))
    ]


def read_page(message: pb.ListLiveItemsRequest) -> tuple[int, int]:
    """Return the cursor and the size of a page.

    Raises:
        InvalidArgumentError: If the service did not give the token, or the size is out of
            range.
    """
    token = message.page_token
    size = message.page_size if message.HasField("page_size") else PAGE_SIZE
    if not (re.fullmatch(r"[0-9]{0,20}", token) and int(token or 0) < 2**64):
        raise InvalidArgumentError(
            f"page_token must be empty or the next_page_token of the page before, got {token!r}"
        )
    if not 1 <= size <= MAX_ITEM_IDS:
        raise InvalidArgumentError(f"page_size must be between 1 and {MAX_ITEM_IDS}, got {size}")
    return int(token or 0), size


def read_live_selection(
    message: pb.ForgetLiveItemsRequest,
) -> list[str] | Literal["superseded", "all"]:
    """Return which live records to remove: those of the named items, all, or the superseded ones.

    Raises:
        InvalidArgumentError: If there are too few or too many ids, ids and another selection, or a
            selection that is unknown to this release.
    """
    if message.selection == pb.LIVE_SELECTION_UNSPECIFIED:
        return read_ids("item_ids", message.item_ids, at_least=1, at_most=MAX_ITEM_IDS)
    if message.item_ids:
        raise InvalidArgumentError(
            f"item_ids must be empty when selection is set, got {len(message.item_ids)}"
        )
    if message.selection not in _LIVE_SELECTIONS:
        raise InvalidArgumentError(
            f"selection must be one of {', '.join(pb.LiveSelection.keys())}, "
            f"got {message.selection}"
        )
    return _LIVE_SELECTIONS[message.selection]


def read_amount(name: str, amount: float, *, at_least: float = 0.0) -> float:
    """Return a price, quantity or value.

    Raises:
        InvalidArgumentError: If it is out of bounds, or not a number.
    """
    if not at_least <= amount <= MAX_AMOUNT:  # false for NaN
        raise InvalidArgumentError(
            f"{name} must be a number from {at_least:g} to {MAX_AMOUNT:g}, got {amount}"
        )
    return amount


def check_count(name: str, count: int, *, at_least: int, at_most: int) -> None:
    """Raise unless a list has a length within bounds.

    Raises:
        InvalidArgumentError: If it does not.
    """
    if not at_least <= count <= at_most:
        raise InvalidArgumentError(f"{name} must have {at_least} to {at_most} entries, got {count}")


def _read_each(name: str, messages: Sequence[M], read: Callable[[M], T]) -> list[T]:
    """Return rules of one kind; errors have the index of the rule."""
    rules = []
    for index, message in enumerate(messages):
        with _naming(f"{name}[{index}]."):
            rules.append(read(message))
    return rules


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say where in a request the argument of an error is."""
    try:
        yield
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}{error}") from error


def _read_pin(message: pb.Pin) -> Pin:
    return Pin(read_id("item_id", message.item_id), message.position, **_read_period(message))


def _read_shift(message: pb.Shift) -> Shift:
    strength = message.strength if message.HasField("strength") else Shift.strength
    return Shift(**_selection(message.items), strength=strength)


def _read_selection(message: pb.Selection) -> Selection:
    return Selection(**_selection(message))


def _selection(message: pb.Selection) -> dict[str, Any]:
    check_count("category", len(message.category), at_least=0, at_most=MAX_PARTS)
    check_count("attributes", len(message.attributes), at_least=0, at_most=MAX_PARTS)
    return {
        "item_ids": [read_id("item_ids", one) for one in message.item_ids],
        "category": tuple(message.category),
        "attributes": dict(message.attributes),
        **_read_period(message),
    }


def _read_period(message: pb.Pin | pb.Selection) -> dict[str, datetime]:
    return {
        name: from_us(read_us(name, getattr(message, name)))
        for name in ("since", "until")
        if message.HasField(name)
    }


def _read_fields(name: str, message: pb.Item) -> dict[str, Any]:
    """Return all columns of an item but its id; blank cells are empty, as in tables."""
    check_count(f"{name}.category", len(message.category), at_least=0, at_most=MAX_PARTS)
    check_count(f"{name}.attributes", len(message.attributes), at_least=0, at_most=MAX_PARTS)
    created_at = None
    if message.HasField("created_at"):
        created_at = from_us(read_us(f"{name}.created_at", message.created_at))
        if created_at >= LATEST_ITEM:
            raise InvalidArgumentError(
                f"{name}.created_at must lie before the year {LATEST_ITEM.year}, got "
                f"{created_at}; leave it out where it is unknown"
            )
    return {
        **{
            field: _read_text(f"{name}.{field}", getattr(message, field))
            for field in ("title", "description", "image")
        },
        "category": [level.strip() for level in message.category if level.strip()],
        "price": read_amount(f"{name}.price", message.price) if message.HasField("price") else None,
        "attributes": [
            {"key": key, "value": value}
            for key, value in sorted(message.attributes.items())
            if value.strip()
        ],
        "available": message.available if message.HasField("available") else True,
        "created_at": created_at,
    }


def _read_text(name: str, text: str) -> str | None:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidArgumentError(
            f"{name} must have at most {MAX_TEXT_CHARACTERS} characters, got {len(text)}"
        )
    return text if text.strip() else None


def _read_picture(name: str, message: pb.ItemUpsert, max_bytes: int) -> bytes | None:
    if not message.HasField("picture"):
        return None
    return message.picture and read_image(name, message.picture, max_bytes=max_bytes)
