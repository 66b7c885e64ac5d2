"""Generate a whole shop: tables, pictures and customers' photos, with tastes planted in it."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.synthetic.behaviour import simulate_events
from recsys.data.synthetic.camera import Shot, customer_shot, studio_shot
from recsys.data.synthetic.pictures import Renderer
from recsys.data.synthetic.products import Ints, Products, draw_products
from recsys.data.synthetic.seasons import draw_arrival_months, month_starts
from recsys.data.synthetic.shoppers import draw_shoppers
from recsys.data.synthetic.tables import build_events, build_items, build_photos

Progress = Callable[[str, int, int], None]
"""Called with the stage ("events" or "pictures"), the steps done and the steps there are."""

_PHOTOS_PER_ITEM = 1.1
_PHOTOGRAPHED = 0.75  # of the items; nobody sent a photo of the others
_PHOTO_SPLITS = {"train": 0.6, "val": 0.15, "test": 0.25}
_UNKNOWN_PER_ITEM = 0.125
_UNKNOWN_SPLITS = {"val": 0.5, "test": 0.5}
_JPEG_QUALITY = 90
_MIN_ITEMS = 50


@dataclass(frozen=True)
class Shop:
    """Where a generated shop lies, and how large it came out.

    Args:
        items: Item table.
        events: Event table.
        photos: Photos of catalogue products.
        unknown: Photos of products that are not in the catalogue; ``item_id`` is null.
        images: Root of the ``image`` paths of all tables.
        split: First instant of the last month, in which the last products arrive: the test month.
        end: The end of that month, after the last event.
        n_items: Rows of ``items``.
        n_events: Rows of ``events``.
        n_photos: Rows of ``photos``.
        n_unknown: Rows of ``unknown``.
    """

    items: Path
    events: Path
    photos: Path
    unknown: Path
    images: Path
    split: datetime
    end: datetime
    n_items: int
    n_events: int
    n_photos: int
    n_unknown: int


def generate_shop(
    folder: Path,
    *,
    end: datetime,
    n_items: int = 1200,
    n_users: int = 2000,
    months: int = 24,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shop:
    """Write a generated shop and return where it lies.

    Shoppers choose by look (colour, material, form), which only pictures show, by words (brand,
    theme), which only titles say, and by product type, season, price, novelty and the product's
    own popularity; so a model needs both modalities to rank well. The same arguments give the
    same tables.

    Args:
        folder: Where to put it; missing or empty. It is filled only when all is written.
        end: End of the last month: the first of a month, 00:00 UTC.
        n_items: Catalogue size N.
        n_users: Number of shoppers U; a few of them never do anything.
        months: Months of events.
        seed: Source of everything drawn.
        progress: Told how far it is.

    Raises:
        ValueError: If an argument is out of its range or ``folder`` is not empty.
    """
    _check(folder, end=end, n_items=n_items, n_users=n_users, months=months)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left over by a run that was killed
    partial.mkdir(parents=True)
    try:
        shop = _write_shop(
            partial,
            month_starts=month_starts(end, months),
            n_items=n_items,
            n_users=n_users,
            seed=seed,
            progress=progress or (lambda stage, done, total: None),
        )
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return shop


