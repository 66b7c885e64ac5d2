"""Render products as small pictures."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from recsys.data.arrays import Doubles
from recsys.data.synthetic.camera import PICTURE_PX, Shot
from recsys.data.synthetic.decoration import Decoration, draw_pattern
from recsys.data.synthetic.materials import TILE_PX, Finish, Pixels, build_finishes
from recsys.data.synthetic.products import Products
from recsys.data.synthetic.shapes import Role, ellipse
from recsys.data.synthetic.silhouettes import draw_shape
from recsys.data.synthetic.vocabulary import COLOURS, FORMS, LEAVES, MATERIALS, PATTERNS

_SUPERSAMPLE = 3
_MARGIN_PX = 4  # around a part, for the blur that softens its edges
_TEXTURE_PX_PER_UNIT = 30.0
_HANGING = ("pendant", "clock")

# Nobody's colour: none of these tells what a shopper likes.
_TRIMS = ((58.0, 46.0, 38.0), (34.0, 34.0, 38.0), (196.0, 158.0, 92.0), (240.0, 238.0, 232.0))
_GLOW = (255.0, 232.0, 176.0)
_PLANT = (112.0, 132.0, 96.0)
_SKIN = (196.0, 150.0, 126.0)


class _Mask(NamedTuple):
    """How much of each pixel something covers, in [0, 1], inside a window of the picture."""

    window: tuple[slice, slice]
    cover: Pixels


class Renderer:
    """Draws products; it holds the texture tiles, which all pictures share.

    Args:
        rng: Source of the textures, then of the noise of each picture rendered.
    """

    def __init__(self, *, rng: np.random.Generator) -> None:
        self._rng = rng
        self._finishes = build_finishes(rng=rng)

    def render(self, products: Products, row: int, shot: Shot) -> Image.Image:
        """Return the picture of the product at ``row``, RGB, ``PICTURE_PX`` square."""
        leaf = list(LEAVES)[products.leaf[row]]
        proportions = products.proportions[row].tolist()
        finish = self._finishes[list(MATERIALS)[products.material[row]]]
        colour = products.rgb[row].astype(np.float32)
        accent = np.array(list(COLOURS.values())[products.accent[row]], dtype=np.float32)
        decoration = Decoration(draw_pattern(PATTERNS[products.pattern[row]], proportions), accent)
        body = _body_paint(colour, finish, decoration, proportions, shot)
        flat = _flat_paints(colour, proportions)

        parts = draw_shape(leaf, FORMS[products.form[row]], proportions)
        masks = [
            _mask(map(shot.place, part.outlines), map(shot.place, part.holes)) for part in parts
        ]
        canvas = _cast_shadow(shot.backdrop, masks, hanging=leaf in _HANGING)
        for part, mask in zip(parts, masks, strict=True):
            is_body = part.role == "body"
            paint = body[mask.window] if is_body else flat[part.role]
            _lay(canvas, paint, mask, finish if is_body else None, turned=part.shading == "lathe")
        return self._develop(canvas, shot)

    def _develop(self, canvas: Pixels, shot: Shot) -> Image.Image:
        if shot.occluder is not None:
            window, cover = _mask([shot.occluder])
            near = _blurred(cover, 2.0)[..., None]  # too near to be in focus
            canvas[window] += (np.array(_SKIN, dtype=np.float32) - canvas[window]) * near
        canvas *= shot.exposure
        grain = self._rng.standard_normal((*canvas.shape[:2], 1), dtype=np.float32)
        canvas += shot.noise * grain
        picture = Image.fromarray(np.clip(canvas, 0.0, 255.0).astype(np.uint8))
        return picture.filter(ImageFilter.GaussianBlur(shot.blur_px)) if shot.blur_px else picture


def _body_paint(
    colour: Pixels,
    finish: Finish,
    decoration: Decoration,
    proportions: Sequence[float],
    shot: Shot,
) -> Pixels:
    """Return colour, decoration and texture, as if the body covered the picture (H, W, 3)."""
    stain = np.array(finish.stain, dtype=np.float32)
    base = np.empty((PICTURE_PX, PICTURE_PX, 3), dtype=np.float32)
    base[:] = colour + finish.stain_share * (stain - colour)
    if decoration.outlines:
        window, cover = _mask(map(shot.place, decoration.outlines))
        base[window] += (decoration.colour - base[window]) * cover[..., None]
    return base * _texture(finish.tile, proportions, shot)[..., None]


def _flat_paints(colour: Pixels, proportions: Sequence[float]) -> dict[Role, Pixels]:
    """Return the paint (3,) of everything but the body."""
    trim = _TRIMS[min(int(proportions[3] * len(_TRIMS)), len(_TRIMS) - 1)]
    return {
        "trim": np.array(trim, dtype=np.float32),
        "tint": colour + 0.62 * (250.0 - colour),
        "glow": np.array(_GLOW, dtype=np.float32),
        "hollow": 0.32 * colour + 18.0,
        "plant": np.array(_PLANT, dtype=np.float32),
    }


def _texture(tile: Image.Image, proportions: Sequence[float], shot: Shot) -> Pixels:
    """Return the tile as it lies on the product, turned with it (H, W)."""
    step = _TEXTURE_PX_PER_UNIT * 2.0 / (PICTURE_PX * shot.scale)
    cos, sin = step * math.cos(shot.turn), step * math.sin(shot.turn)
    # One product has its own piece of the tile in every picture: grain tells two boards apart.
    left, top = (TILE_PX * (0.5 + share) for share in proportions[:2])
    half = PICTURE_PX / 2
    affine = (cos, sin, left - half * (cos + sin), -sin, cos, top - half * (cos - sin))
    size = (PICTURE_PX, PICTURE_PX)
    return np.array(tile.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def _mask(outlines: Iterable[Doubles], holes: Iterable[Doubles] = ()) -> _Mask:
    """Return the area of ``outlines`` (n, 2), in half pictures, less that of ``holes``."""
    pixels = [(outline + 1.0) * (PICTURE_PX / 2) for outline in outlines]
    corners = np.concatenate(pixels)
    low = np.clip(np.floor(corners.min(axis=0)) - _MARGIN_PX, 0, PICTURE_PX - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + _MARGIN_PX, low + 1, PICTURE_PX).astype(int)
    image = Image.new("L", tuple(((high - low) * _SUPERSAMPLE).tolist()))
    draw = ImageDraw.Draw(image)
    for outline in pixels:
        draw.polygon(((outline - low) * _SUPERSAMPLE).ravel().tolist(), fill=255)
    for outline in holes:
        hole = (outline + 1.0) * (PICTURE_PX / 2)
        draw.polygon(((hole - low) * _SUPERSAMPLE).ravel().tolist(), fill=0)
    cover = np.asarray(image.reduce(_SUPERSAMPLE), dtype=np.float32) / 255.0
    return _Mask((slice(low[1], high[1]), slice(low[0], high[0])), cover)


def _lay(
    canvas: Pixels, paint: Pixels, mask: _Mask, finish: Finish | None, *, turned: bool
) -> None:
    """Lay one part over the canvas, lit from the upper left."""
    window, cover = mask
    soft = _blurred(cover, 3.0)
    light = 0.72 + 0.3 * soft  # edges turn away from the light
    if turned:
        side = _side(cover)
        light *= 0.66 + 0.42 * np.sqrt(1.0 - side**2) - 0.16 * side
    else:
        side = np.linspace(-0.9, 0.9, len(cover), dtype=np.float32)[:, None]
        light *= 1.02 - 0.1 * side
    opacity = cover
    shine = None
    if finish is not None:
        light *= 1.0 + 0.5 * finish.bands * np.cos(7.5 * side + 0.8)
        shine = finish.gloss * np.exp(-(((side + 0.42) / 0.16) ** 2)) * (soft > 0.75)
        # Glass is thin in the middle and thick at its edges.
        opacity = cover * np.minimum(finish.opacity + 0.6 * (1.0 - soft), 1.0)
    lit = paint * light[..., None]
    if shine is not None:
        lit += (255.0 - lit) * shine[..., None]
    canvas[window] += (lit - canvas[window]) * opacity[..., None]


def _side(cover: Pixels) -> Pixels:
    """Return where each pixel lies between its row's left (-1) and right (1) border (H, W)."""
    inside = cover > 0.5
    last = cover.shape[1] - 1
    left = inside.argmax(axis=1, keepdims=True)
    right = last - inside[:, ::-1].argmax(axis=1, keepdims=True)
    place = (2 * np.arange(last + 1) - left - right) / np.maximum(right - left, 1)
    side: Pixels = np.clip(place, -1.0, 1.0).astype(np.float32)
    return side


def _cast_shadow(backdrop: Pixels, masks: Sequence[_Mask], *, hanging: bool) -> Pixels:
    """Return the backdrop with the product's shadow, on the wall or on the floor (H, W, 3)."""
    union = np.zeros(backdrop.shape[:2], dtype=np.float32)
    for window, cover in masks:
        np.maximum(union[window], cover, out=union[window])
    canvas = backdrop.copy()
    if hanging:
        shadow = 0.3 * _blurred(np.roll(union, (5, 4), axis=(0, 1)), 5.0)
        return canvas * (1.0 - shadow[..., None])
    rows, columns = (np.flatnonzero((union > 0.5).any(axis=axis)) for axis in (1, 0))
    centre = (columns[0] + columns[-1]) / PICTURE_PX - 1.0
    radius = (columns[-1] - columns[0] + 1) / PICTURE_PX
    floor = ellipse(centre, 2.0 * rows[-1] / PICTURE_PX - 1.02, 1.05 * radius, 0.12)
    window, cover = _mask([floor])
    canvas[window] *= 1.0 - 0.42 * _blurred(cover, 3.0)[..., None]
    return canvas


def _blurred(cover: Pixels, radius: float) -> Pixels:
    image = Image.fromarray((cover * 255.0).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / 255.0
