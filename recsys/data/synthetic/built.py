"""Shapes of built and sewn things: furniture, clocks, bags. As in ``silhouettes``."""

from collections.abc import Sequence

import numpy as np

from recsys.data.arrays import Doubles
from recsys.data.synthetic.shapes import (
    Part,
    arc,
    box,
    ellipse,
    lathe,
    polygon,
    regular,
    rim,
    stroke,
)


def chair(form: str, p: Sequence[float]) -> list[Part]:
    """Return a chair with a closed, slotted or barred back."""
    width, top, seat = 0.44 + 0.14 * p[0], -0.92 + 0.15 * p[1], 0.12 + 0.1 * p[2]
    middle, height = (top + seat) / 2, seat - top
    if form == "round":
        back = ellipse(0.0, middle - 0.04, width, height / 2)
    elif form == "straight":
        back = box(0.0, middle - 0.06, 2 * width, height - 0.12, corner=0.05)
    else:
        back = _trapezoid(1.15 * width, top, 0.7 * width, seat)
    holes: list[Doubles] = []
    if p[3] > 0.66:
        slots = (-0.5 * width, 0.0, 0.5 * width)
        holes = [box(x, middle - 0.05, 0.16 * width, 0.55 * height, corner=0.04) for x in slots]
    elif p[3] > 0.33:
        holes = [box(0.0, middle, 0.9 * width, 0.16, corner=0.08)]
    splay = {"round": 0.06, "straight": 0.0, "flared": 0.22}[form]
    corner = 0.02 if form == "straight" else 0.11
    return [
        Part("trim", _legs(0.8 * width, 1.05 * width, top=seat, splay=splay)),
        Part("trim", [box(x, seat - 0.1, 0.06, 0.3) for x in (-0.6 * width, 0.6 * width)]),
        Part("body", [back], holes),
        Part("body", [box(0.0, seat + 0.08, 2.4 * width, 0.3, corner=corner)]),
    ]


def side_table(form: str, p: Sequence[float]) -> list[Part]:
    """Return a table: round on one foot, or square on four legs with or without a shelf."""
    width, top, thick = 0.66 + 0.22 * p[0], -0.36 + 0.3 * p[1], 0.16 + 0.12 * p[2]
    if form == "round":
        foot = lathe([top, 0.55, 0.7, 0.88], [0.14, 0.14, 0.2, 0.28 + 0.2 * p[3]], smooth=True)
        slab = lathe([top, top + thick], [width, width], smooth=False)
        return [
            Part("body", [foot], shading="lathe"),
            Part("body", [slab], shading="lathe"),
            Part("tint", [rim(top, 0.94 * width)]),
        ]
    inset, splay = (0.84, 0.0) if form == "straight" else (0.6, 0.26)
    legs = _legs(0.75 * inset * width, inset * width, top=top, splay=splay)
    shelf = Part("body", [box(0.0, 0.5, 1.5 * inset * width, 0.08)])
    return [
        Part("trim", legs),
        *([shelf] if p[3] > 0.5 else []),
        Part("body", [box(0.0, top + thick, 2 * width, 2 * thick, corner=0.02)]),
        Part("body", [_trapezoid(0.8 * width, top - 0.36, width, top)]),
    ]


def clock(form: str, p: Sequence[float]) -> list[Part]:
    """Return a wall clock: a frame in the product's material around a pale face."""
    radius = 0.78 + 0.12 * p[0]
    inner = radius - 0.2 - 0.2 * p[1]
    reach = 0.82 * inner
    hours = np.arange(12)[:: 1 if p[3] > 0.5 else 3] * (np.pi / 6)
    ticks = [ellipse(reach * np.sin(a), -reach * np.cos(a), 0.035, 0.035) for a in hours]
    time = 2.0 * np.pi * p[2]
    hands = [_hand(time, 0.55 * reach, 0.075), _hand(12.0 * time, 0.85 * reach, 0.05)]
    return [
        Part("body", [_plate(form, radius)], [_plate(form, inner)]),
        Part("tint", [_plate(form, inner)]),
        Part("trim", [*ticks, *hands, ellipse(0.0, 0.0, 0.06, 0.06)]),
    ]


def handbag(form: str, p: Sequence[float]) -> list[Part]:
    """Return a handbag, a half moon, a box or a trapezoid, with or without a flap."""
    top, bottom, width = -0.2 + 0.2 * p[0], 0.78, 0.62 + 0.2 * p[1]
    if form == "round":
        bag = arc(0.0, top, width, bottom - top, 0.0, 0.5)
    elif form == "straight":
        bag = box(0.0, (top + bottom) / 2, 1.8 * width, bottom - top, corner=0.06)
    else:
        bag = _trapezoid(0.62 * width, top, 1.1 * width, bottom)
    handle = arc(0.0, top + 0.04, 0.5 * width, 0.45 + 0.25 * p[2], 0.5, 1.0)
    has_flap = p[3] > 0.5
    flap = _trapezoid(0.6 * width, top, 0.3 * width, top + 0.36)
    clasp = box(0.0, top + (0.4 if has_flap else 0.04), 0.16, 0.12, corner=0.03)
    return [
        Part("trim", [stroke(handle, 0.08)]),
        Part("body", [bag]),
        *([Part("tint", [flap])] if has_flap else []),
        Part("trim", [clasp]),
    ]


def backpack(form: str, p: Sequence[float]) -> list[Part]:
    """Return a backpack with a pocket, with or without a flap."""
    top, bottom, width = -0.78 + 0.14 * p[0], 0.84, 0.5 + 0.16 * p[1]
    if form == "round":
        radii = [width * radius for radius in (0.5, 0.86, 0.98, 1.0, 1.0, 0.92)]
        bag = lathe(np.linspace(top, bottom - 0.04, len(radii)).tolist(), radii, smooth=True)
    elif form == "straight":
        bag = box(0.0, (top + bottom) / 2, 2 * width, bottom - top, corner=0.07)
    else:
        bag = _trapezoid(0.62 * width, top, 1.15 * width, bottom)
    flap = box(0.0, top + 0.3, (1.3 if form == "flared" else 1.7) * width, 0.5, corner=0.16)
    straps = [
        arc(side * 0.9 * width, 0.2, 0.24, 0.42, -0.25 * side, 0.5 - 0.25 * side)
        for side in (-1.0, 1.0)
    ]
    return [
        Part("trim", [stroke(strap, 0.08) for strap in straps]),
        Part("trim", [stroke(arc(0.0, top + 0.02, 0.18, 0.18, 0.5, 1.0), 0.07)]),
        Part("body", [bag]),
        Part("tint", [box(0.0, 0.48, 1.4 * width, 0.42 + 0.14 * p[2], corner=0.08)]),
        *([Part("body", [flap])] if p[3] > 0.5 else []),
        Part("trim", [box(0.0, 0.36, 0.5 * width, 0.06)]),
    ]


def _trapezoid(upper: float, top: float, lower: float, bottom: float) -> Doubles:
    """Return a symmetric trapezoid from its half widths above and below."""
    return polygon((-upper, top), (upper, top), (lower, bottom), (-lower, bottom))


def _legs(back: float, front: float, *, top: float, splay: float) -> list[Doubles]:
    """Return four legs, the two at the back ending higher up."""
    return [
        polygon(
            (side * x, top),
            (side * (x + 0.09), top),
            (side * (x + 0.06 + splay), bottom),
            (side * (x + splay), bottom),
        )
        for x, bottom in ((back, 0.78), (front, 0.95))
        for side in (-1.0, 1.0)
    ]


def _plate(form: str, radius: float) -> Doubles:
    if form == "round":
        return ellipse(0.0, 0.0, radius, radius)
    if form == "straight":
        return box(0.0, 0.0, 1.8 * radius, 1.8 * radius, corner=0.06)
    return regular(0.0, 0.0, 1.08 * radius, 8)


def _hand(angle: float, length: float, width: float) -> Doubles:
    tip = (length * np.sin(angle), -length * np.cos(angle))
    return stroke(np.array([(0.0, 0.0), tip]), width)
