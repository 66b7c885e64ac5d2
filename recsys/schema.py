"""The three tables: their canonical columns, types and rules."""

import dataframely as dy
import polars as pl

SPLITS = ("train", "val", "test")


class ItemSchema(dy.Schema):
    """One row per item of the catalogue."""

    item_id = dy.String(min_length=1, description="Key.")
    title = dy.String(nullable=True, description="What shoppers read.")
    description = dy.String(nullable=True, description="Longer text.")
    image = dy.String(nullable=True, description="Picture, relative to the images root.")
    category = dy.List(dy.String(), description="Path, coarse to fine; empty when unknown.")
    price = dy.Float64(nullable=True, min=0, description="In the shop's currency.")
    attributes = dy.List(
        dy.Struct({"key": dy.String(), "value": dy.String()}),
        description="Name and value, as Parquet stores maps; empty when there are none.",
    )
    available = dy.Bool(description="Whether it can be bought now.")
    created_at = dy.Datetime(
        nullable=True, time_unit="us", time_zone="UTC", description="When it entered the shop."
    )

    @dy.rule()
    def item_id_is_unique(cls) -> pl.Expr:  # noqa: N805 - dataframely passes the class
        """All rows of one id but the first are wrong."""
        return cls.item_id.col.is_null() | cls.item_id.col.is_first_distinct()


class EventSchema(dy.Schema):
    """One row per thing that a user did with an item."""

    user_id = dy.String(min_length=1, description="Who.")
    item_id = dy.String(min_length=1, description="Key of the item.")
    kind = dy.String(min_length=1, description="view, click, cart, purchase, or any other word.")
    timestamp = dy.Datetime(time_unit="us", time_zone="UTC", description="When.")
    quantity = dy.Float64(min=0, description="How many units.")
    value = dy.Float64(nullable=True, description="Money that changed hands.")


class PhotoSchema(dy.Schema):
    """One row per customer's photo; its product or category may be unknown."""

    image = dy.String(min_length=1, description="Picture, relative to the images root.")
    item_id = dy.String(nullable=True, description="Key of the item on it.")
    category = dy.List(dy.String(), description="Path, coarse to fine; empty when unknown.")
    split = dy.String(
        nullable=True,
        check={"known": lambda split: split.is_in(SPLITS)},
        description="train, val or test, where the shop decided it.",
    )
