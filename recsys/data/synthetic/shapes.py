"""Outlines from which product shapes are put together, in units where a product spans [-1, 1]."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from recsys.data.arrays import Doubles

Role = Literal["body", "trim", "tint", "glow", "hollow", "plant"]
Shading = Literal["lathe", "flat"]

_TILT = 0.16  # how far a horizontal circle opens up, seen from slightly above
_TURN = np.linspace(0.0, 2.0 * np.pi, 36, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)
_SMOOTHING = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 3.0, 2.0, 1.0]) / 25.0


class Part(NamedTuple):
    """One area of a product, drawn over the parts before it.

    Args:
        role: Where its paint comes from: the product's colour and material ("body"), a neutral
            trim, a pale tint of the colour, lamp light, a dark inside, or leaves.
        outlines: Closed polygons (n, 2) that together are the area; y points down.
        holes: Closed polygons cut out of it.
        shading: Lit like a turned, round thing or like a flat one.
    """

    role: Role
    outlines: Sequence[Doubles]
    holes: Sequence[Doubles] = ()
    shading: Shading = "flat"


def ellipse(x: float, y: float, rx: float, ry: float) -> Doubles:
    """Return an ellipse's outline (n, 2)."""
    return _CIRCLE * (rx, ry) + (x, y)


def regular(x: float, y: float, radius: float, corners: int) -> Doubles:
    """Return a regular polygon standing on a side (corners, 2)."""
    angles = np.pi / 2 + np.pi / corners + np.arange(corners) * 2.0 * np.pi / corners
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def polygon(*points: tuple[float, float]) -> Doubles:
    """Return the outline through ``points`` (n, 2)."""
    return np.array(points, dtype=np.float64)


def box(x: float, y: float, width: float, height: float, *, corner: float = 0.0) -> Doubles:
    """Return a box around (x, y), its corners rounded by radius ``corner`` (n, 2)."""
    half_w, half_h = width / 2, height / 2
    corner = min(corner, half_w, half_h)
    if corner <= 0.0:
        return polygon(
            (x - half_w, y - half_h),
            (x + half_w, y - half_h),
            (x + half_w, y + half_h),
            (x - half_w, y + half_h),
        )
    centres = np.sign(np.round(_CIRCLE, 9)) * (half_w - corner, half_h - corner)
    return corner * _CIRCLE + centres + (x, y)


def stroke(points: Doubles, width: float) -> Doubles:
    """Return the outline of a line of some width through ``points`` (n, 2)."""
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width / 2)
    return np.concatenate([points + across, (points - across)[::-1]])


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> Doubles:
    """Return the points of an open arc, angles in turns, clockwise from the right (n, 2)."""
    angles = np.linspace(start, stop, 24) * 2.0 * np.pi
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def lathe(heights: Sequence[float], radii: Sequence[float], *, smooth: bool) -> Doubles:
    """Return the outline of a turned body, seen from slightly above (n, 2).

    Args:
        heights: Heights from top to bottom at which ``radii`` holds.
        radii: Half widths there.
        smooth: Round the profile off instead of joining it with straight lines.
    """
    y = np.linspace(heights[0], heights[-1], 30)
    radius = np.interp(y, heights, radii)
    if smooth:
        padded = np.concatenate([[radius[0]] * 4, radius, [radius[-1]] * 4])
        radius = np.convolve(padded, _SMOOTHING, mode="valid")
    side = np.stack([radius, y], axis=1)
    bottom = arc(0.0, y[-1], radius[-1], _TILT * radius[-1], 0.0, 0.5)
    top = arc(0.0, y[0], radius[0], _TILT * radius[0], 0.5, 1.0)
    return np.concatenate([side, bottom, side[::-1] * (-1.0, 1.0), top])


def rim(y: float, radius: float) -> Doubles:
    """Return the opening of a turned body at height ``y`` (n, 2)."""
    return ellipse(0.0, y, radius, _TILT * radius)
