"""The canonical columns, types, rules and bounds of the tables: items, events, photos and more.

The service holds what it receives to the same bounds, so a row that a table may have can also be
sent, and the other way round.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import dataframely as dy
import polars as pl

MAX_ID_CHARACTERS = 1_024  # shops use the URLs of their products as ids
MAX_TEXT_CHARACTERS = 20_000  # of a title or a description
MAX_PARTS = 256  # levels of a category path, attributes of an item
# More than a house costs in rials. Models compute in float32, which also holds its square and cube.
MAX_AMOUNT = 1e12
# White space, and the two invisible characters that copying leaves behind. They are cut off both
# ends of an id, an event kind and a split.
BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
)
CONTROL_CHARACTER = r"[\x00-\x1f\x7f-\x9f]"  # regular expression; no id contains one
SPLITS = ("train", "val", "test")
RELATION_KINDS = ("goes_with", "replaces", "part_of")
# Kind of an event that says what the shop showed and not what the user did: nothing learns from it.
IMPRESSION = "impression"
# Left is what a user of right may want; relations of the other kinds hold both ways.
ONE_WAY_KINDS = ("replaces",)
# A Unix time that was read in the wrong unit lies in the first weeks of 1970.
EARLIEST_EVENT = datetime(1971, 1, 1, tzinfo=UTC)
# The years 2999 and 9999 stand for "unknown" or "never" in many shops.
LATEST_ITEM = datetime(2100, 1, 1, tzinfo=UTC)

_Check = dict[str, Callable[[pl.Expr], pl.Expr]]
_ID_CHECK: _Check = {"id_length": lambda text: text.str.len_chars() <= MAX_ID_CHARACTERS}
_TEXT_CHECK: _Check = {"text_length": lambda text: text.str.len_chars() <= MAX_TEXT_CHARACTERS}


def is_first_of_its_id(item_id: pl.Expr) -> pl.Expr:
    """Return whether a row is the first of its id, or has none."""
    return item_id.is_null() | item_id.is_first_distinct()


class ItemSchema(dy.Schema):
    """One row per item of the catalogue."""

    item_id = dy.String(min_length=1, check=_ID_CHECK, description="Unique key of the item.")
    title = dy.String(nullable=True, check=_TEXT_CHECK, description="Title that shoppers read.")
    description = dy.String(
        nullable=True, check=_TEXT_CHECK, description="Longer text that shoppers read."
    )
    image = dy.String(
        nullable=True, description="Path of the picture, relative to the images root."
    )
    category = dy.List(
        dy.String(),
        max_length=MAX_PARTS,
        description="Path, coarse to fine; empty when unknown.",
    )
    # Infinity and NaN are above the bound.
    price = dy.Float64(
        nullable=True,
        min=0,
        max=MAX_AMOUNT,
        allow_inf=True,
        allow_nan=True,
        description="Price in the shop's currency.",
    )
    attributes = dy.List(
        dy.Struct({"key": dy.String(), "value": dy.String()}),
        max_length=MAX_PARTS,
        description="Name and value, as Parquet stores maps; empty when there are none.",
    )
    available = dy.Bool(description="Whether the item can be bought now.")
    created_at = dy.Datetime(
        nullable=True,
        max_exclusive=LATEST_ITEM,
        time_unit="us",
        time_zone="UTC",
        description="Time at which the item entered the shop.",
    )

    @dy.rule()
    def item_id_is_unique(cls) -> pl.Expr:  # noqa: N805 - dataframely passes the class
        """Of several rows with one id, only the first is valid."""
        return is_first_of_its_id(cls.item_id.col)


class EventSchema(dy.Schema):
    """One row per action of a user on an item."""

    user_id = dy.String(min_length=1, check=_ID_CHECK, description="Key of the user.")
    item_id = dy.String(min_length=1, check=_ID_CHECK, description="Key of the item.")
    kind = dy.String(
        min_length=1,
        check=_ID_CHECK,
        description="view, click, cart, purchase, or any other word, in lower case.",
    )
    timestamp = dy.Datetime(
        min=EARLIEST_EVENT, time_unit="us", time_zone="UTC", description="Time of the event."
    )
    quantity = dy.Float64(
        min=0, max=MAX_AMOUNT, allow_inf=True, allow_nan=True, description="Number of units."
    )
    value = dy.Float64(
        nullable=True,
        min=-MAX_AMOUNT,
        max=MAX_AMOUNT,
        allow_inf=True,
        allow_nan=True,
        description="Money that changed hands.",
    )


class PhotoSchema(dy.Schema):
    """One row per customer's photo; its product or category may be unknown."""

    image = dy.String(min_length=1, description="Path of the photo, relative to the images root.")
    item_id = dy.String(nullable=True, check=_ID_CHECK, description="Key of the item on the photo.")
    category = dy.List(
        dy.String(),
        max_length=MAX_PARTS,
        description="Path, coarse to fine; empty when unknown.",
    )
    split = dy.String(
        nullable=True,
        check={"known": lambda split: split.is_in(SPLITS)},
        description="train, val or test, where the shop has chosen one.",
    )


class RelationSchema(dy.Schema):
    """One row per pair of items that the shop relates."""

    left = dy.String(min_length=1, check=_ID_CHECK, description="Key of an item.")
    right = dy.String(min_length=1, check=_ID_CHECK, description="Key of another item.")
    kind = dy.String(
        check={"relation": lambda kind: kind.is_in(RELATION_KINDS)},
        description="goes_with, replaces or part_of: left goes with right, and so on.",
    )
    weight = dy.Float64(
        min_exclusive=0,
        max=MAX_AMOUNT,
        allow_inf=True,
        allow_nan=True,
        description="How strong the relation is, beside the others of its kind.",
    )


class PairSchema(dy.Schema):
    """One row per pair of a user and an item whose ranking features are wanted."""

    user_id = dy.String(min_length=1, check=_ID_CHECK, description="Key of the user.")
    item_id = dy.String(min_length=1, check=_ID_CHECK, description="Key of the item.")
    timestamp = dy.Datetime(
        nullable=True,
        min=EARLIEST_EVENT,
        time_unit="us",
        time_zone="UTC",
        description="Time of the request; empty is the moment as of which the items are known.",
    )
