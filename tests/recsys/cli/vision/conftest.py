"""Configurations and photos that the tests of the vision commands share."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recsys.bundle import Bundle
from recsys.config import load_config
from recsys.data.synthetic import Shop
from recsys.pipeline import load_tables
from recsys.training.samples import PictureSamples, label_pictures, picture_samples
from vision.tower import VisionTower

TINY = """
[vision]
backbone = "test_resnet"
pretrained = false
size = 32
dim = 8
epochs = 1
"""


@pytest.fixture(scope="module")
def tower(tiny_bundle: Path) -> VisionTower:
    return Bundle(tiny_bundle).vision


@pytest.fixture
def photo(tiny_shop: Shop) -> Path:
    return tiny_shop.images / str(pl.read_parquet(tiny_shop.photos)["image"][0])


@pytest.fixture
def write(tiny_shop: Shop, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a configuration with the tiny shop's items and photos."""

    def run(more: str = "", *, vision: str = TINY, photos: pl.DataFrame | None = None) -> Path:
        table = pl.read_parquet(tiny_shop.photos) if photos is None else photos
        table.write_parquet(tmp_path / "photos.parquet")
        path = tmp_path / "shop.toml"
        path.write_text(
            f'device = "cpu"\n[data]\nitems = "{tiny_shop.items}"\n'
            f'photos = "photos.parquet"\nimages_root = "{tiny_shop.images}"\n{vision}{more}'
        )
        return path

    return run


@pytest.fixture
def pictureless(tmp_path: Path) -> Path:
    """Configuration of a shop whose items have titles but no pictures."""
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["mug", "lamp"]})
    items.write_csv(tmp_path / "items.csv")
    path = tmp_path / "pictureless.toml"
    path.write_text('[data]\nitems = "items.csv"\n[search.size]\nchoices = [32]\n')
    return path


@pytest.fixture
def pictures() -> Callable[[Path], PictureSamples]:
    """Return a function that reads the labelled pictures of a configuration."""

    def read(config: Path) -> PictureSamples:
        dataset = load_tables(load_config(config))
        return picture_samples(dataset, label_pictures(dataset))

    return read
