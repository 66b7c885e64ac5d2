"""Draw each material: a grey texture tile, and its response to light."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]

TILE_PX = 320
"""Texture pixels after which a tile repeats."""


class Finish(NamedTuple):
    """How a material takes light and paint.

    Args:
        tile: Texture of floats around 1.0, twice as wide and high as it takes to repeat.
        gloss: Strength of a soft highlight on turned parts.
        bands: Strength of the hard reflections of polished metal.
        opacity: Share of the background that the material hides.
        stain: Colour mixed into the paint, in [0, 255].
        stain_share: Share of ``stain`` in the paint.
    """

    tile: Image.Image
    gloss: float
    bands: float
    opacity: float
    stain: tuple[float, float, float]
    stain_share: float


def build_finishes(*, rng: np.random.Generator) -> dict[str, Finish]:
    """Return the finish of every material of the vocabulary."""
    rows, columns = np.mgrid[0:TILE_PX, 0:TILE_PX].astype(np.float32)
    flat = _tile(np.ones_like(rows))
    white, brown, grey = (255.0, 255.0, 255.0), (150.0, 98.0, 52.0), (170.0, 174.0, 180.0)
    return {
        "wood": Finish(_wood(rows, columns, rng), 0.05, 0.0, 1.0, brown, 0.34),
        "metal": Finish(_brushed(rng), 0.3, 0.8, 1.0, grey, 0.28),
        "glass": Finish(flat, 0.5, 0.2, 0.6, white, 0.08),
        "ceramic": Finish(_speckled(rng), 0.45, 0.0, 1.0, white, 0.06),
        "fabric": Finish(_woven(rows, columns, rng), 0.0, 0.0, 1.0, white, 0.06),
        "leather": Finish(_grained(rng), 0.22, 0.0, 1.0, (70.0, 40.0, 24.0), 0.2),
        "rattan": Finish(_basket(rows, columns), 0.0, 0.0, 1.0, (214.0, 176.0, 120.0), 0.34),
    }


def _wood(rows: Pixels, columns: Pixels, rng: np.random.Generator) -> Image.Image:
    wobble = _noise((8, 24), rng) * 14.0 + _noise((3, 5), rng) * 30.0
    grain = np.sin((rows + wobble) * (2.0 * np.pi / 9.0)) + 0.8 * _noise((64, 6), rng)
    return _tile(1.0 + 0.15 * grain)


def _brushed(rng: np.random.Generator) -> Image.Image:
    return _tile(1.0 + 0.06 * _noise((120, 3), rng))


def _speckled(rng: np.random.Generator) -> Image.Image:
    specks = _noise((90, 90), rng)
    return _tile(np.where(specks > 1.7, 0.55, 1.03))


def _woven(rows: Pixels, columns: Pixels, rng: np.random.Generator) -> Image.Image:
    warp, weft = np.sin(columns * (np.pi / 3.0)), np.sin(rows * (np.pi / 3.0))
    return _tile(1.0 + 0.24 * warp * weft + 0.05 * _noise((120, 120), rng))


def _grained(rng: np.random.Generator) -> Image.Image:
    creases = np.abs(_noise((45, 45), rng))
    return _tile(0.78 + 0.28 * np.minimum(creases, 1.2) + 0.08 * _noise((12, 12), rng))


def _basket(rows: Pixels, columns: Pixels) -> Image.Image:
    period = 9.0
    across = (np.floor(rows / period) + np.floor(columns / period)) % 2 == 0
    strand = np.where(across, rows % period, columns % period) / period
    end = np.where(across, columns % period, rows % period) / period
    rounded = np.sin(np.pi * strand) ** 0.5 * np.sin(np.pi * (0.12 + 0.76 * end)) ** 0.4
    return _tile(0.25 + 0.95 * rounded)


def _noise(cells: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Return smooth noise of unit variance with about ``cells`` bumps down and across."""
    coarse = rng.normal(0.0, 1.0, (cells[0] + 1, cells[1] + 1))
    for axis, count in enumerate(cells):
        at = np.linspace(0.0, count, TILE_PX, endpoint=False)
        low = at.astype(np.int64)
        part = at - low
        shape = (-1, 1) if axis == 0 else (1, -1)
        part = (part * part * (3.0 - 2.0 * part)).reshape(shape)
        coarse = np.take(coarse, low, axis) * (1.0 - part) + np.take(coarse, low + 1, axis) * part
    noise: Pixels = (coarse / coarse.std()).astype(np.float32)
    return noise


def _tile(texture: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.tile(texture.astype(np.float32), (2, 2)))
