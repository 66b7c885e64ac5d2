"""What is painted on a product: patterns, in units where a product spans [-1, 1]."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recsys.data.arrays import Doubles
from recsys.data.synthetic.materials import Pixels
from recsys.data.synthetic.shapes import box, ellipse, polygon, stroke


class Decoration(NamedTuple):
    """Outlines that are painted on the body of a product, in one colour.

    Args:
        outlines: Closed polygons (n, 2); an empty list for a plain product.
        colour: Paint of the outlines (3,), in [0, 255].
    """

    outlines: list[Doubles]
    colour: Pixels


def draw_pattern(name: str, proportions: Sequence[float]) -> list[Doubles]:
    """Return what is painted on the body, nothing on a plain one.

    Args:
        name: One of the vocabulary's ``PATTERNS``.
        proportions: Numbers in [0, 1]; the third sets the size of what repeats.
    """
    size = proportions[2]
    if name == "bands":
        step = 0.3 + 0.2 * size
        return [box(0.0, y, 3.0, 0.45 * step) for y in np.arange(-1.0, 1.0, step)]
    if name == "stripes":
        step = 0.3 + 0.2 * size
        return [box(x, 0.0, 0.45 * step, 3.0) for x in np.arange(-1.0, 1.0, step)]
    if name == "dots":
        return _dots(0.3 + 0.14 * size)
    if name == "checks":
        return _checks(0.22 + 0.1 * size)
    if name == "zigzag":
        return [_zigzag(y, 0.2 + 0.1 * size) for y in np.arange(-1.0, 1.2, 0.5)]
    if name == "panel":
        return [box(0.0, 0.65 + 0.3 * size, 3.0, 0.8)]
    if name == "sash":
        middle, half = 0.4 * size, 0.16
        corners = ((-1.0, -1.0), (1.0, 1.0))
        (left, upper), (right, lower) = corners
        return [
            polygon(
                (left, middle + upper - half),
                (right, middle + lower - half),
                (right, middle + lower + half),
                (left, middle + upper + half),
            )
        ]
    if name == "medallion":
        return [ellipse(0.0, 0.3, 0.26 + 0.14 * size, 0.26 + 0.14 * size)]
    return []


def _dots(step: float) -> list[Doubles]:
    """Return staggered dots."""
    return [
        ellipse(step * (x - 4 + 0.5 * (y % 2)), step * (y - 4), 0.3 * step, 0.3 * step)
        for x, y in np.ndindex(9, 9)
    ]


def _checks(step: float) -> list[Doubles]:
    """Return every second field of a chessboard."""
    return [
        box(step * (x - 5), step * (y - 5), step, step)
        for x, y in np.ndindex(11, 11)
        if (x + y) % 2 == 0
    ]


def _zigzag(y: float, height: float) -> Doubles:
    """Return one zigzag line across the product."""
    across = np.linspace(-1.05, 1.05, 15)
    return stroke(np.stack([across, y + height * (np.arange(15) % 2 - 0.5)], axis=1), 0.14)
