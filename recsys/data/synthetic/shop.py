"""Generate a whole shop: tables, pictures and customers' photos, with tastes planted in it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recsys.data.arrays import Ints
from recsys.data.files import whole_folder
from recsys.data.progress import Progress
from recsys.data.synthetic.behaviour import simulate_events
from recsys.data.synthetic.camera import Shot, customer_shot, studio_shot
from recsys.data.synthetic.pictures import Renderer
from recsys.data.synthetic.products import Products, draw_products
from recsys.data.synthetic.seasons import draw_arrival_months, month_starts
from recsys.data.synthetic.shoppers import draw_shoppers
from recsys.data.synthetic.tables import build_events, build_items, build_photos
from recsys.errors import InvalidArgumentError

_PHOTOS_PER_ITEM = 1.5
_PHOTOGRAPHED = 0.75  # share of the items; the others have no photo
_UNKNOWN_PER_ITEM = 0.125
_SPLITS = {
    "photos": {"train": 0.5, "val": 0.25, "test": 0.25},
    "unknown": {"val": 0.5, "test": 0.5},
}
_JPEG_QUALITY = 90
_MIN_ITEMS = 50


class _Job(NamedTuple):
    """An image to write: its path, the product on it, and how its shot is drawn."""

    path: str
    products: Products
    row: int
    take_shot: Callable[..., Shot]


@dataclass(frozen=True)
class Shop:
    """The files of a generated shop, and its sizes.

    Args:
        folder: Folder with the tables and the images.
        split: First instant of the last month, in which the last products arrive: the test month.
        end: End of that month, after the last event.
        n_items: Number of rows of ``items``.
        n_events: Number of rows of ``events``.
        n_photos: Number of rows of ``photos``.
        n_unknown: Number of rows of ``unknown``.
    """

    folder: Path
    split: datetime
    end: datetime
    n_items: int
    n_events: int
    n_photos: int
    n_unknown: int

    @property
    def items(self) -> Path:
        """Item table."""
        return self.folder / "items.parquet"

    @property
    def events(self) -> Path:
        """Event table."""
        return self.folder / "events.parquet"

    @property
    def photos(self) -> Path:
        """Table of customers' photos of catalogue products."""
        return self.folder / "photos.parquet"

    @property
    def unknown(self) -> Path:
        """Table of photos of products that are not in the catalogue: ``item_id`` is null."""
        return self.folder / "unknown.parquet"

    @property
    def images(self) -> Path:
        """Root of the ``image`` paths of all tables."""
        return self.folder / "images"


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
    """Write a generated shop into ``folder`` and return its files and sizes.

    Shoppers choose by look (colour, material, form), which only pictures show, by words (brand,
    theme), which only titles say, and by product type, season, price, novelty and the product's
    own popularity; so a model needs both modalities to rank well. The same arguments give the
    same tables and pictures.

    Args:
        folder: Folder to make, missing or empty. It appears when everything is written.
        end: End of the last month: the first of a month, 00:00 UTC.
        n_items: Catalogue size N.
        n_users: Number of shoppers U; a few of them have no events.
        months: Number of months with events.
        seed: Random seed for all draws.
        progress: Function called with "events" or "pictures", and how many are done.

    Raises:
        InvalidArgumentError: If an argument is out of its range or ``folder`` is not empty.
        FileAccessError: If the folder cannot be written.
    """
    _check(folder, end=end, n_items=n_items, n_users=n_users, months=months)
    with whole_folder(folder) as scratch:
        report = progress or _ignore
        counts = _write_shop(scratch, month_starts(end, months), n_items, n_users, seed, report)
    return Shop(folder, month_starts(end, months)[-2], end, n_items, *counts)


def _check(folder: Path, *, end: datetime, n_items: int, n_users: int, months: int) -> None:
    if end.utcoffset() != timedelta(0) or end != end.replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    ):
        raise InvalidArgumentError(
            f"end must be the first of a month, 00:00 UTC, got {end.isoformat()}"
        )
    for name, value, least in (
        ("n_items", n_items, _MIN_ITEMS),
        ("n_users", n_users, 1),
        ("months", months, 2),
    ):
        if value < least:
            raise InvalidArgumentError(f"{name} must be at least {least}, got {value}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidArgumentError(
            f"folder must be missing or empty, got {folder}: choose another one"
        )


def _write_shop(
    folder: Path,
    starts: list[datetime],
    n_items: int,
    n_users: int,
    seed: int,
    report: Progress,
) -> tuple[int, int, int]:
    """Write all files and return how many events, photos and unknown photos there are."""
    # Each part has a random stream of its own, so a change to one part leaves the others alone.
    streams = np.random.SeedSequence(seed).spawn(7)
    facts, arriving, tastes, acts, texts, sending, drawing = map(np.random.default_rng, streams)
    months = len(starts) - 1
    n_unknown = round(_UNKNOWN_PER_ITEM * n_items)
    everything = draw_products(n_items + n_unknown, rng=facts)
    products = everything.take(slice(n_items))
    strangers = everything.take(slice(n_items, None))  # drawn alike, and not in the catalogue

    report("events", 0, 1)
    arrivals = draw_arrival_months(n_items, months=months, rng=arriving)
    shoppers = draw_shoppers(n_users, months=months, rng=tastes)
    events = simulate_events(
        products, shoppers, arrival_months=arrivals, month_starts=starts, rng=acts
    )
    build_events(events, products, n_users=n_users).write_parquet(folder / "events.parquet")
    report("events", 1, 1)

    items = build_items(products, arrival_months=arrivals, month_starts=starts, rng=texts)
    items.write_parquet(folder / "items.parquet")
    pictured = items["image"].is_not_null().arg_true()
    photographed = _photographed_rows(n_items, sending)
    jobs = [
        *_jobs(items["image"].drop_nulls(), products, pictured, studio_shot),
        *_write_photos(folder, "photos", products, photographed, sending),
        *_write_photos(folder, "unknown", strangers, np.arange(n_unknown), sending),
    ]
    _write_pictures(folder / "images", jobs, drawing, report)
    return len(events.kinds), len(photographed), n_unknown


def _write_photos(
    folder: Path, name: str, products: Products, rows: Ints, rng: np.random.Generator
) -> list[_Job]:
    """Write a table of photos, one of each row of ``products``, and return how to draw them."""
    splits = _draw_splits(len(rows), _SPLITS[name], rng)
    photos = build_photos(name, rows, products, known=name == "photos", splits=splits)
    photos.write_parquet(folder / f"{name}.parquet")
    return _jobs(photos["image"], products, rows, customer_shot)


def _jobs(
    paths: Iterable[str], products: Products, rows: Iterable[int], take_shot: Callable[..., Shot]
) -> list[_Job]:
    return [_Job(path, products, row, take_shot) for path, row in zip(paths, rows, strict=True)]


def _write_pictures(
    images: Path, jobs: Sequence[_Job], rng: np.random.Generator, report: Progress
) -> None:
    for name in ("products", "photos", "unknown"):
        (images / name).mkdir(parents=True)
    renderer = Renderer(rng=rng)
    for done, (path, products, row, take_shot) in enumerate(jobs):
        report("pictures", done, len(jobs))
        picture = renderer.render(products, row, take_shot(rng=rng))
        picture.save(images / path, quality=_JPEG_QUALITY)
    report("pictures", len(jobs), len(jobs))


def _photographed_rows(n_items: int, rng: np.random.Generator) -> Ints:
    """Return the product on each photo (P,): one for each photographed product, then repeats."""
    n_photos = round(_PHOTOS_PER_ITEM * n_items)
    chosen = rng.permutation(n_items)[: round(_PHOTOGRAPHED * n_items)]
    repeats = rng.choice(chosen, size=n_photos - len(chosen))
    return rng.permutation(np.concatenate([chosen, repeats]))


def _draw_splits(n_photos: int, shares: dict[str, float], rng: np.random.Generator) -> list[str]:
    """Return a split per photo (P), each with its exact share."""
    bounds = np.round(np.cumsum(list(shares.values())) * n_photos)
    codes = np.searchsorted(bounds, np.arange(n_photos), side="right")
    return [list(shares)[code] for code in rng.permutation(codes)]


def _ignore(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
