"""The canonical columns, types and rules of the three tables: items, events and photos."""

import dataframely as dy
import polars as pl

SPLITS = ("train", "val", "test")


def is_first_of_its_id(item_id: pl.Expr) -> pl.Expr:
    """Return whether a row is the first of its id, or has none."""
    return item_id.is_null() | item_id.is_first_distinct()


class ItemSchema(dy.Schema):
    """One row per item of the catalogue."""

    item_id = dy.String(min_length=1, description="Unique key of the item.")
    title = dy.String(nullable=True, description="Title that shoppers read.")
    description = dy.String(nullable=True, description="Longer text that shoppers read.")
    image = dy.String(
        nullable=True, description="Path of the picture, relative to the images root."
    )
    category = dy.List(dy.String(), description="Path, coarse to fine; empty when unknown.")
    price = dy.Float64(nullable=True, min=0, description="Price in the shop's currency.")
    attributes = dy.List(
        dy.Struct({"key": dy.String(), "value": dy.String()}),
        description="Name and value, as Parquet stores maps; empty when there are none.",
    )
    available = dy.Bool(description="Whether the item can be bought now.")
    created_at = dy.Datetime(
        nullable=True,
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

    user_id = dy.String(min_length=1, description="Key of the user.")
    item_id = dy.String(min_length=1, description="Key of the item.")
    kind = dy.String(min_length=1, description="view, click, cart, purchase, or any other word.")
    timestamp = dy.Datetime(time_unit="us", time_zone="UTC", description="Time of the event.")
    quantity = dy.Float64(min=0, description="Number of units.")
    value = dy.Float64(nullable=True, description="Money that changed hands.")


class PhotoSchema(dy.Schema):
    """One row per customer's photo; its product or category may be unknown."""

    image = dy.String(min_length=1, description="Path of the photo, relative to the images root.")
    item_id = dy.String(nullable=True, description="Key of the item on the photo.")
    category = dy.List(dy.String(), description="Path, coarse to fine; empty when unknown.")
    split = dy.String(
        nullable=True,
        check={"known": lambda split: split.is_in(SPLITS)},
        description="train, val or test, where the shop has chosen one.",
    )
