"""Turn the generated shop's facts into the library's canonical tables."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from recsys.data.arrays import Ints
from recsys.data.synthetic.behaviour import KINDS, Events
from recsys.data.synthetic.products import Products
from recsys.data.synthetic.vocabulary import COLOURS, LEAVES, MATERIALS, PATTERNS
from recsys.data.synthetic.words import write_descriptions, write_titles

_NO_PICTURE = 0.03
_ATTRIBUTE_KNOWN = 0.85
_OLDEST_DAYS = 400

_TIME = pl.Datetime("us", "UTC")
_ATTRIBUTES = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))


def item_ids(n_items: int) -> list[str]:
    """Return the ids of the items, in row order (N)."""
    return [f"item-{row:05d}" for row in range(1, n_items + 1)]


def build_items(
    products: Products,
    *,
    arrival_months: Ints,
    month_starts: Sequence[datetime],
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Return the item table; a few products have no picture, a few no usable title."""
    ids = item_ids(len(products))
    pictured = rng.random(len(products)) >= _NO_PICTURE
    return pl.DataFrame(
        {
            "item_id": ids,
            "title": write_titles(products, rng=rng),
            "description": write_descriptions(products, rng=rng),
            "image": [
                f"products/{item_id}.jpg" if has else None
                for item_id, has in zip(ids, pictured, strict=True)
            ],
            "category": categories(products),
            "price": products.price.round(2),
            "attributes": _attributes(products, rng),
            "available": [True] * len(products),
            "created_at": _created_at(arrival_months, month_starts, rng),
        },
        schema={
            "item_id": pl.String,
            "title": pl.String,
            "description": pl.String,
            "image": pl.String,
            "category": pl.List(pl.String),
            "price": pl.Float64,
            "attributes": _ATTRIBUTES,
            "available": pl.Boolean,
            "created_at": _TIME,
        },
    )


def build_events(events: Events, products: Products, *, n_users: int) -> pl.DataFrame:
    """Return the event table, oldest first."""
    users = pl.Series([f"user-{row:05d}" for row in range(1, n_users + 1)], dtype=pl.String)
    items = pl.Series(item_ids(len(products)), dtype=pl.String)
    paid = events.quantities * products.price[events.item_rows].round(2)
    bought = events.kinds == KINDS.index("purchase")
    return pl.DataFrame(
        {
            "user_id": users.gather(events.user_rows),
            "item_id": items.gather(events.item_rows),
            "kind": pl.Series(KINDS, dtype=pl.String).gather(events.kinds),
            "timestamp": pl.Series(events.timestamps_us).cast(_TIME),
            "quantity": events.quantities.astype(np.float64),
            "value": pl.Series(paid.round(2)).set(pl.Series(~bought), None),
        }
    )


def build_photos(
    subfolder: str,
    rows: Ints,
    products: Products,
    *,
    splits: Sequence[str],
    known: bool,
) -> pl.DataFrame:
    """Return a photo table, with ``item_id`` if the products are ``known``.

    Args:
        subfolder: Folder of the photos under the images root.
        rows: Product on each photo (P,).
        products: Products that ``rows`` refers to.
        splits: Split of each photo (P).
        known: Whether the products are in the catalogue.
    """
    ids = item_ids(len(products))
    return pl.DataFrame(
        {
            "image": [f"{subfolder}/photo-{number:05d}.jpg" for number in range(1, len(rows) + 1)],
            "item_id": [ids[row] if known else None for row in rows],
            "category": categories(products.take(rows)),
            "split": list(splits),
        },
        schema={
            "image": pl.String,
            "item_id": pl.String,
            "category": pl.List(pl.String),
            "split": pl.String,
        },
    )


def categories(products: Products) -> list[list[str]]:
    """Return the category path of each product, coarse to fine (N)."""
    paths = [list(leaf.path) for leaf in LEAVES.values()]
    return [paths[leaf] for leaf in products.leaf]


def _attributes(products: Products, rng: np.random.Generator) -> list[list[dict[str, str]]]:
    """Return the facts of the look that the shop noted, each missing at times (N)."""
    facts = (
        ("colour", list(COLOURS), products.colour),
        ("material", list(MATERIALS), products.material),
        ("pattern", list(PATTERNS), products.pattern),
        ("accent", list(COLOURS), products.accent),
    )
    known = rng.random((len(products), len(facts))) < _ATTRIBUTE_KNOWN
    known[:, -1] &= products.pattern != PATTERNS.index("plain")  # nothing of it to see
    return [
        [
            {"key": key, "value": names[codes[row]]}
            for (key, names, codes), is_known in zip(facts, known[row], strict=True)
            if is_known
        ]
        for row in range(len(products))
    ]


def _created_at(
    arrival_months: Ints, month_starts: Sequence[datetime], rng: np.random.Generator
) -> list[datetime]:
    """Return when each product came in: the first of its month, or some day before the start."""
    ages = rng.integers(1, _OLDEST_DAYS, size=len(arrival_months)).tolist()
    return [
        month_starts[month] if month > 0 else month_starts[0] - timedelta(days=age)
        for month, age in zip(arrival_months.tolist(), ages, strict=True)
    ]
