"""Planted titles of a brand, a style, a colour and a product, whose words are independent."""

from collections.abc import Callable

import numpy as np
import pytest

from text.config import TextConfig
from text.dataset import Samples
from text.encoder import TextEncoder
from text.networks.build import build_encoder

BRANDS = ("Aldero", "Brenna", "Dorvik", "Kestrel", "Norrhem", "Pellini")
STYLES = ("Nordic", "Retro", "Fern", "Harbour", "Loft", "Boho", "Zen", "Alpine")
COLOURS = ("red", "teal", "mustard", "ivory", "grün")
PRODUCTS = ("vase", "mug", "teapot", "clock", "Stuhl", "灯")
CLASSES = {"brand": BRANDS, "category.0 level": PRODUCTS}

MULTILINGUAL = (
    "红色连衣裙 女 XL",
    "メンズ ジーンズ 32インチ",
    "Sonnenblumenöl 1,5 l – Größe XL",
    "Winter 🧥👨‍👩‍👧 coat 2-pack",
    "Кофеварка «Дом» 220V",
    "",
)


@pytest.fixture(scope="session")
def planted() -> Callable[..., Samples]:
    """Return a maker of samples; the same seed gives the same titles."""

    def make(count: int, *, seed: int = 0) -> Samples:
        rng = np.random.default_rng(seed)
        brand, style = rng.integers(len(BRANDS), size=count), rng.integers(len(STYLES), size=count)
        colour, product = rng.integers(len(COLOURS), size=count), rng.integers(6, size=count)
        texts = [
            f"{BRANDS[b]} {STYLES[s]} {COLOURS[c]} {PRODUCTS[p]}"
            for b, s, c, p in zip(brand, style, colour, product, strict=True)
        ]
        # Every fifth category is unknown, as labels are in real shops.
        known = np.where(np.arange(count) % 5 == 0, -1, product)
        return Samples(
            texts=texts,
            targets={"brand": brand.astype(np.int64), "category.0 level": known.astype(np.int64)},
            classes=CLASSES,
        )

    return make


@pytest.fixture(scope="session")
def small_config() -> TextConfig:
    """Return an encoder that trains in a second."""
    return TextConfig(hidden=32, heads=2, layers=1, vocab_size=600, batch_size=32, epochs=4)


@pytest.fixture
def encoder(planted: Callable[..., Samples], small_config: TextConfig) -> TextEncoder:
    """Return an untrained encoder that has seen every script of the tests."""
    return build_encoder(small_config, [*planted(60).texts, *MULTILINGUAL], seed=0)
