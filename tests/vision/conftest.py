"""Planted pictures: squares on grey whose colour is one target and whose size is another."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.planted import coloured_square
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
    """Return a function that makes samples, the same for the same seed."""

    def make(count: int, *, seed: int = 0) -> Samples:
        folder = tmp_path_factory.mktemp("planted")
        rng = np.random.default_rng(seed)
        colours = np.arange(count) % len(COLOURS)
        large = rng.integers(0, 2, count)
        for row in range(count):
            grey = int(rng.integers(60, 140))
            side = 22 if large[row] else 9
            top, left = int(rng.integers(0, 40 - side)), int(rng.integers(0, 48 - side))
            picture = coloured_square(
                list(COLOURS.values())[colours[row]],
                left=left,
                top=top,
                side=side,
                size=(48, 40),
                background=(grey, grey, grey),
            )
            picture.save(folder / f"{row}.png")
        # Every fifth size is unknown, as in the tables of real shops.
        sides = np.where(np.arange(count) % 5 == 0, -1, large)
        return Samples(
            images=[Path(f"{row}.png") for row in range(count)],
            targets={"colour": colours.astype(np.int64), "side.of it": sides.astype(np.int64)},
            classes=CLASSES,
            root=folder,
        )

    return make
