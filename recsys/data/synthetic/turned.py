"""Shapes of turned things: vessels and lamps. Forms and proportions as in ``silhouettes``."""

from collections.abc import Sequence

import numpy as np

from recsys.data.arrays import Doubles
from recsys.data.synthetic.shapes import Part, arc, box, ellipse, lathe, polygon, rim, stroke


def vase(form: str, p: Sequence[float]) -> list[Part]:
    """Return a vase, sometimes with twigs."""
    top, width = -0.72 + 0.4 * p[0], 0.38 + 0.26 * p[1]
    outline, opening = _vessel(form, top, 0.86, width=width, neck=0.3 + 0.35 * p[2])
    parts = [
        Part("body", [outline], shading="lathe"),
        Part("hollow", [rim(top, 0.86 * opening)]),
    ]
    if p[3] > 0.5:
        twigs = [
            stroke(np.array([(0.0, top + 0.05), (0.4 * x, top - 0.2), (x, y)]), 0.03)
            for x, y in ((-0.3, -0.98), (0.05, -1.08), (0.34, -0.94))
        ]
        parts.append(Part("trim", twigs))
    return parts


def mug(form: str, p: Sequence[float]) -> list[Part]:
    """Return a mug with a round or an angular handle."""
    top, bottom, width = -0.62 + 0.3 * p[0], 0.66, 0.52 + 0.14 * p[1]
    outline, opening = _vessel(form, top, bottom, width=width, neck=0.82)
    middle = top + (0.4 if form == "flared" else 0.5) * (bottom - top)
    reach = 0.24 + 0.14 * p[2]
    if p[3] > 0.5:
        handle = arc(0.66 * width, middle, reach + 0.14, 0.34, -0.27, 0.27)
    else:
        corners = ((0.6, -0.3, 0.0), (1.0, -0.3, reach), (1.0, 0.1, reach), (0.6, 0.3, 0.0))
        handle = np.array([(at * width + out, middle + down) for at, down, out in corners])
    centring = np.array([-0.14, 0.0])  # cup and handle together stand in the middle
    return [
        Part("body", [stroke(handle, 0.11) + centring]),
        Part("body", [outline + centring], shading="lathe"),
        Part("hollow", [rim(top, 0.88 * opening) + centring]),
    ]


def teapot(form: str, p: Sequence[float]) -> list[Part]:
    """Return a teapot whose handle is behind it or above it."""
    top, width = -0.3 + 0.2 * p[0], 0.5 + 0.12 * p[1]
    outline, opening = _vessel(form, top, 0.66, width=width, neck=0.55)
    spout = np.array([(0.3 * width, 0.4), (width + 0.1, 0.24), (0.95, top - 0.1)])
    if p[3] > 0.5:
        handle = Part("body", [stroke(arc(-0.75 * width, 0.12, 0.4, 0.34, 0.22, 0.78), 0.1)])
    else:
        handle = Part("trim", [stroke(arc(0.0, top, 0.85 * width, 0.55, 0.5, 1.0), 0.09)])
    lid_top = top - 0.12 - 0.08 * p[2]
    lid = lathe([lid_top, top], [0.35 * opening, 0.9 * opening], smooth=form != "straight")
    return [
        handle,
        Part("body", [stroke(spout, 0.17)]),
        Part("body", [outline], shading="lathe"),
        Part("tint", [lid], shading="lathe"),
        Part("trim", [ellipse(0.0, lid_top - 0.08, 0.09, 0.09)]),
    ]


def planter(form: str, p: Sequence[float]) -> list[Part]:
    """Return a plant pot with a plant in it, sometimes on a saucer."""
    top, width = -0.12 + 0.3 * p[0], 0.52 + 0.2 * p[1]
    outline, opening = _vessel(form, top, 0.82, width=width, neck=0.75)
    reach = 0.5 + 0.25 * p[2]
    leaves = [_leaf(angle, reach, top) for angle in np.linspace(-1.0, 1.0, 5 + int(3 * p[3]))]
    saucer = lathe([0.84, 0.9], [0.8 * width, 0.8 * width], smooth=False)
    return [
        Part("plant", leaves),
        *([Part("trim", [saucer])] if p[3] > 0.5 else []),
        Part("body", [outline], shading="lathe"),
        Part("hollow", [rim(top, 0.86 * opening)]),
        Part("plant", [leaves[len(leaves) // 2]]),
    ]


def table_lamp(form: str, p: Sequence[float]) -> list[Part]:
    """Return a lamp: a base in the product's material under a pale shade."""
    split, width = -0.15 + 0.25 * p[0], 0.5 + 0.22 * p[1]
    base, _ = _vessel(form, split + 0.1, 0.86, width=0.24 + 0.22 * p[2], neck=0.35)
    plate = lathe([0.84, 0.9], [0.42, 0.42], smooth=False)
    return [
        *([Part("trim", [plate])] if p[3] > 0.5 else []),
        Part("trim", [box(0.0, split + 0.06, 0.07, 0.3)]),
        Part("body", [base], shading="lathe"),
        Part("tint", [_shade(form, -0.86, split, width=width)], shading="lathe"),
    ]


def pendant(form: str, p: Sequence[float]) -> list[Part]:
    """Return a lamp that hangs from its cord, sometimes with a neutral edge."""
    top, bottom, width = -0.42 + 0.2 * p[0], 0.42 + 0.2 * p[1], 0.62 + 0.24 * p[2]
    opening = rim(bottom, 0.9 * width)
    edge = lathe([bottom - 0.1, bottom - 0.05], [width, width], smooth=False)
    return [
        Part("trim", [box(0.0, (top - 1.3) / 2, 0.035, 1.3 + top)]),
        Part("glow", [ellipse(0.0, bottom + 0.08, 0.16, 0.16)]),
        Part("body", [_shade(form, top, bottom, width=width)], shading="lathe"),
        Part("glow", [opening]),
        Part("trim", [box(0.0, top - 0.08, 0.2, 0.2, corner=0.06)]),
        *([Part("trim", [edge], [opening])] if p[3] > 0.6 else []),
    ]


def lantern(form: str, p: Sequence[float]) -> list[Part]:
    """Return a lantern: a candle behind glass and bars, under a roof."""
    width = 0.42 + 0.14 * p[0]
    roof, bottom = -0.34 + 0.12 * p[1], 0.72
    peak, middle = roof - 0.32 - 0.18 * p[2], (roof + bottom) / 2
    lower = 0.72 * width if form == "flared" else width
    if form == "round":
        glass = ellipse(0.0, middle, 1.18 * width, (bottom - roof) / 2 + 0.06)
        cap = _shade("round", peak, roof, width=1.15 * width)
    else:
        glass = polygon((-width, roof), (width, roof), (lower, bottom), (-lower, bottom))
        ridge, eaves = 0.3 * width, 1.25 * width
        cap = polygon((-ridge, peak), (ridge, peak), (eaves, roof), (-eaves, roof))
    pane = (glass - (0.0, middle)) * (0.68, 0.82) + (0.0, middle)
    bars = (-0.5, 0.5) if p[3] > 0.5 else (0.0,)
    foot = lathe([bottom - 0.12, bottom + 0.14], [1.1 * lower, 1.1 * lower], smooth=False)
    return [
        Part("trim", [stroke(arc(0.0, peak, 0.2, 0.24, 0.5, 1.0), 0.05)]),
        Part("glow", [glass]),
        Part("trim", [box(0.0, 0.5, 0.26, 0.4, corner=0.03)]),
        Part("body", [box(x * width, middle, 0.09, bottom - roof) for x in bars]),
        Part("body", [glass], [pane]),
        Part("body", [cap], shading="lathe"),
        Part("body", [foot], shading="lathe"),
    ]


def _vessel(
    form: str, top: float, bottom: float, *, width: float, neck: float
) -> tuple[Doubles, float]:
    """Return a vessel's outline and the radius of its opening."""
    radii = {
        "round": (neck, 0.85, 1.0, 0.88, 0.5),
        "straight": (0.84, 0.84, 0.84, 0.84, 0.84),
        "flared": (1.0, 0.8, 0.66, 0.56, 0.5),
    }[form]
    scaled = [width * radius for radius in radii]
    heights = np.linspace(top, bottom, len(radii)).tolist()
    return lathe(heights, scaled, smooth=form != "straight"), scaled[0]


def _shade(form: str, top: float, bottom: float, *, width: float) -> Doubles:
    """Return a lamp shade's outline: a dome, a drum or a cone."""
    if form == "round":
        radii = width * np.sqrt(1.0 - np.linspace(0.94, 0.0, 6) ** 2)
        return lathe(np.linspace(top, bottom, 6).tolist(), radii.tolist(), smooth=True)
    narrow = 0.92 if form == "straight" else 0.38
    return lathe([top, bottom], [narrow * width, width], smooth=False)


def _leaf(angle: float, reach: float, top: float) -> Doubles:
    cos, sin = np.cos(angle), np.sin(angle)
    upright = ellipse(0.0, 0.0, 0.09, 0.5)
    middle = np.array([0.6 * reach * sin, top - 0.6 * reach * cos])
    blade: Doubles = upright @ np.array([[cos, sin], [-sin, cos]]) + middle
    return blade
