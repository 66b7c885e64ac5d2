"""A shop of six items whose pictures, texts and photos are known, for what towers learn from."""

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from recsys.data.dataset import Dataset
from recsys.data.quarantine import Quarantine
from recsys.schema import ItemSchema, PhotoSchema
from recsys.training.labels import Labels

TITLES = ["red mug", None, "blue mug", "green jug", None, "blue jug"]
DESCRIPTIONS = ["for tea", None, None, None, "a thing", None]
IMAGES = ["0.png", "1.png", None, "3.png", "4.png", None]
COLOURS = ("red", "blue", "green")
LABELS = Labels({"colour": np.array([0, 1, 1, 2, -1, 1])}, {"colour": COLOURS})
# Item and split of each photo; no split means train.
PHOTOS = [("0", "train"), ("3", "val"), ("1", None), ("2", "test"), ("0", "val")]


def draw_pictures(folder: Path) -> None:
    """Write the files of pictures and photos, no two of which are alike."""
    rng = np.random.default_rng(0)
    for name in [*(image for image in IMAGES if image), *(f"p{n}.png" for n in range(5))]:
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(folder / name)


def mug_shop(images_root: Path) -> Dataset:
    """Return the tables, without events."""
    items = [
        {
            "item_id": str(n),
            "title": TITLES[n],
            "description": DESCRIPTIONS[n],
            "image": IMAGES[n],
            "category": [],
            "attributes": [],
            "available": True,
        }
        for n in range(6)
    ]
    photos = [
        {"image": f"p{n}.png", "item_id": item, "category": [], "split": split}
        for n, (item, split) in enumerate(PHOTOS)
    ]
    return Dataset(
        items=pl.DataFrame(items, schema=ItemSchema.create_empty().schema),
        events=None,
        photos=pl.DataFrame(photos, schema=PhotoSchema.create_empty().schema),
        images_root=images_root,
        quarantine=Quarantine(()),
    )
