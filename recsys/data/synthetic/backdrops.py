"""Backgrounds: calm ones for the shop's own pictures, lived-in ones for customers' photos."""

import colorsys

import numpy as np

from recsys.data.synthetic.materials import Pixels


def studio_backdrop(size_px: int, *, rng: np.random.Generator) -> Pixels:
    """Return a wall over a floor, or a plain sheet, in pale colours (H, W, 3)."""
    wall = _colour(rng, saturation=(0.01, 0.12), value=(0.84, 0.98))
    canvas = np.empty((size_px, size_px, 3), dtype=np.float32)
    down = np.linspace(1.04, 0.93, size_px, dtype=np.float32)[:, None, None]
    canvas[:] = wall * down
    if rng.random() < 0.6:
        floor = _colour(rng, saturation=(0.02, 0.16), value=(0.7, 0.92))
        horizon = int(size_px * rng.uniform(0.62, 0.8))
        depth = np.linspace(0.9, 1.06, size_px - horizon, dtype=np.float32)[:, None, None]
        canvas[horizon:] = floor * depth
    return _vignette(canvas, 0.08)


def customer_backdrop(size_px: int, *, rng: np.random.Generator) -> Pixels:
    """Return a cluttered room, boards, tiles or cloth, in any light (H, W, 3)."""
    base = _colour(rng, saturation=(0.04, 0.3), value=(0.35, 0.9))
    canvas = np.empty((size_px, size_px, 3), dtype=np.float32)
    canvas[:] = base
    rows, columns = np.mgrid[0:size_px, 0:size_px].astype(np.float32) / size_px
    angle = rng.uniform(0.0, np.pi)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    period = rng.uniform(0.1, 0.3)
    style = rng.integers(4)
    if style == 0:  # boards
        canvas *= (1.0 - 0.3 * ((along / period) % 1.0 < 0.08))[..., None]
        canvas *= (1.0 + 0.06 * np.sin(along * 140.0 + 3.0 * np.sin(across * 9.0)))[..., None]
    elif style == 1:  # tiles
        joint = ((along / period) % 1.0 < 0.07) | ((across / period) % 1.0 < 0.07)
        canvas *= (1.0 - 0.25 * joint)[..., None]
    elif style == 2:  # striped cloth
        other = _colour(rng, saturation=(0.04, 0.3), value=(0.35, 0.9))
        canvas[(along / period) % 1.0 < 0.5] = other
    else:  # things out of focus
        for _ in range(7):
            x, y, radius = rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0), rng.uniform(0.08, 0.3)
            blob = np.exp(-((((columns - x) ** 2 + (rows - y) ** 2) / radius**2) ** 2))
            thing = _colour(rng, saturation=(0.08, 0.45), value=(0.25, 0.95))
            canvas += (thing - canvas) * (0.8 * blob)[..., None]
    return _vignette(canvas, 0.22)


def _colour(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> Pixels:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, dtype=np.float32) * 255.0


def _vignette(canvas: Pixels, strength: float) -> Pixels:
    line = np.linspace(-1.0, 1.0, len(canvas), dtype=np.float32) ** 2
    canvas *= (1.0 - strength * (line[:, None] + line[None, :]) / 2)[..., None]
    return canvas
