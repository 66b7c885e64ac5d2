"""A bundle of small untrained networks, and pictures for them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from recsys.bundle import Bundle, Contents, write_bundle
from recsys.config import FusionConfig
from recsys.models.fusion import build_fusion
from text.config import TextConfig
from text.networks.build import build_encoder
from vision.networks.backbones import build_backbone
from vision.tower import VisionTower

WORDS = ("nordic", "lamp", "blue", "mug", "warm", "chair")


def _write(folder: Path, *, seed: int = 0, towers: Sequence[str] = ("image", "text")) -> Bundle:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = VisionTower(build_backbone("resnet10t", size=32), dim=8, classes={})
        text = build_encoder(TextConfig(hidden=16, layers=1, heads=2), WORDS, seed=seed)
        config = FusionConfig(dim=8, hidden=8)
        dims = {name: tower.dim for name, tower in (("image", vision), ("text", text))}
        fusion = build_fusion(config, {name: dims[name] for name in towers})
    contents = Contents(
        items=pl.DataFrame({"item_id": ["a"]}),
        item_embeddings=np.zeros((1, 8), np.float32),
        fusion=fusion,
        vision=vision if "image" in towers else None,
        text=text if "text" in towers else None,
    )
    return Bundle(write_bundle(contents, folder))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Return a maker of bundles with random weights."""
    return lambda **choices: _write(tmp_path_factory.mktemp("bundle"), **choices)


@pytest.fixture(scope="session")
def bundle(untrained: Callable[..., Bundle]) -> Bundle:
    """An untrained bundle of both towers."""
    return untrained()


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of an items table, beside three pictures and a file that is none."""
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.jpg")
    (tmp_path / "torn.jpg").write_bytes(b"no picture")

    def make(count: int = 10, **columns: Sequence[object]) -> Path:
        rows = {
            "item_id": [f"item-{n}" for n in range(count)],
            "title": [f"{WORDS[n % 6]} {WORDS[n // 6 % 6]}" for n in range(count)],
            "image": [(f"{n % 3}.jpg" if n % 4 else None) for n in range(count)],
        }
        path = tmp_path / "items.parquet"
        pl.DataFrame({**rows, **columns}).write_parquet(path)
        return path

    return make
