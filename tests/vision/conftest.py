"""Planted pictures: a coloured square on grey, whose colour is the class and side the group."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.dataset import Samples

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 220, 30),
    "blue": (30, 30, 220),
    "sand": (220, 220, 30),
}
CLASSES = {"colour": list(COLOURS), "side.of it": ["small", "large"]}


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Samples]:
    """Return a maker of samples; the same seed gives the same pictures."""

    def make(count: int, *, seed: int = 0) -> Samples:
        folder = tmp_path_factory.mktemp("planted")
        rng = np.random.default_rng(seed)
        colours = np.arange(count) % len(COLOURS)
        large = rng.integers(0, 2, count)
        for row in range(count):
            pixels = np.full((40, 48, 3), rng.integers(60, 140), dtype=np.uint8)
            side = 22 if large[row] else 9
            top, left = rng.integers(0, 40 - side), rng.integers(0, 48 - side)
            pixels[top : top + side, left : left + side] = list(COLOURS.values())[colours[row]]
            Image.fromarray(pixels).save(folder / f"{row}.png")
        # Every fifth size is unknown, as labels are in real shops.
        sides = np.where(np.arange(count) % 5 == 0, -1, large)
        return Samples(
            images=[Path(f"{row}.png") for row in range(count)],
            targets={"colour": colours.astype(np.int64), "side.of it": sides.astype(np.int64)},
            classes=CLASSES,
            root=folder,
        )

    return make
