"""A bundle whose tower has heads for categories and attributes, and pictures to annotate."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import FusionConfig
from recsys.models.fusion import build_fusion
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

CLASSES = {
    "category_1": ["Home", "Toys"],
    "category_2": ["Home > Lamps", "Home > Mugs", "Toys > Cars"],
    "attribute_material": ["glass", "steel", "wood"],
    "attribute_usage": ["indoor", "outdoor"],
    "item": ["a", "b"],
}
COLOURS = ("red", "green", "blue", "black")


def _write(folder: Path, classes: Mapping[str, Sequence[str]] = CLASSES) -> Bundle:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = VisionTower(build_backbone("test_resnet", size=32), dim=8, classes=classes)
        for head in tower.heads:  # far enough from uniform for some guesses to be sure
            torch.nn.init.normal_(head.weight, std=4.0)
        config = FusionConfig(dim=8, hidden=8)
        fusion = build_fusion(config, {"image": tower.dim})
    contents = Contents(
        items=pl.DataFrame({"item_id": ["a"]}),
        item_embeddings=np.zeros((1, 8), np.float32),
        fusion=fusion,
        vision=tower,
    )
    return Bundle(write_bundle(contents, folder))


@pytest.fixture(scope="session")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Return a maker of bundles with given heads."""
    return lambda *classes: _write(tmp_path_factory.mktemp("bundle"), *classes)


@pytest.fixture(scope="session")
def bundle(headed: Callable[..., Bundle]) -> Bundle:
    """A bundle with a category of two levels, two attributes, and the product."""
    return headed()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Eight pictures of a square on white, in four colours."""
    paths = [tmp_path / f"{n}.png" for n in range(8)]
    for n, path in enumerate(paths):
        picture = Image.new("RGB", (48, 40), "white")
        picture.paste(COLOURS[n % 4], (10, 8, 24 + n, 32))
        picture.save(path)
    return paths
