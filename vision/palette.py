"""The named colours of a product, from the pixels of its picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vision.arrays import Bools, Doubles, Floats, Ints
from vision.errors import InvalidArgumentError

Lab = tuple[float, float, float]  # lightness, green to red, blue to yellow

# Each pixel gets the colour of the nearest anchor. The anchors were placed by hand while looking at
# Myntra's training pictures. Dyed cloth is much duller in a picture than the name of its colour
# suggests, so most anchors are dull; the last ones of a colour are for print and plastic.
PALETTE: Mapping[str, Sequence[Lab]] = {
    "black": [(5, 0, 0), (18, 0, 0), (28, 0, -1), (34, 0, 0)],
    "grey": [(47, 0, 0), (57, 0, 0), (66, 0, 0), (76, 0, 0)],
    "white": [(85, 0, 1), (92, 0, 0), (100, 0, 0)],
    "beige": [(90, 0, 10), (82, 3, 13), (73, 5, 16)],
    "brown": [
        (22, 7, 6),
        (32, 10, 10),
        (43, 10, 12),
        (55, 11, 15),
        (62, 12, 20),
        (35, 20, 24),
        (50, 18, 28),
    ],
    "gold": [(58, 6, 26), (70, 4, 30)],
    "yellow": [(85, -2, 28), (75, 4, 55), (88, -4, 55), (90, -10, 85)],
    "orange": [(74, 22, 38), (58, 38, 40), (66, 42, 50), (60, 50, 60), (75, 24, 79)],
    "red": [(36, 38, 22), (42, 45, 24), (52, 45, 25), (50, 60, 38), (53, 75, 60)],
    "burgundy": [(22, 18, 4), (30, 26, 8), (38, 28, 8), (26, 46, 36)],
    "pink": [(82, 10, 2), (73, 20, 6), (48, 28, 0), (68, 35, 8), (60, 48, 4), (60, 85, -45)],
    "purple": [(25, 13, -7), (72, 10, -9), (42, 25, -17), (55, 25, -20), (35, 35, -30)],
    "navy": [(15, 3, -9), (28, 3, -9), (20, 8, -20), (13, 45, -60)],
    "blue": [
        (32, 1, -16),
        (42, -1, -14),
        (57, -3, -12),
        (68, -8, -14),
        (78, -5, -10),
        (88, -3, -8),
        (66, -4, -28),
        (46, 10, -38),
        (35, 25, -55),
        (32, 75, -100),
    ],
    "turquoise": [(82, -18, -2), (45, -18, -6), (70, -24, -6), (57, -28, -8), (90, -45, -14)],
    "green": [
        (20, -8, 4),
        (31, -9, 5),
        (53, -14, 8),
        (68, -14, 4),
        (80, -10, 9),
        (75, -18, 30),
        (71, -34, 18),
        (42, -34, 20),
        (62, -40, 45),
        (85, -80, 80),
    ],
    "olive": [(45, -2, 8), (30, -2, 12), (45, -3, 18), (58, -4, 20), (52, -12, 55)],
}
SIDE = 64  # pixels that a picture is reduced to; details below a 64th of it are averaged
PLAIN_SHARE = 0.8  # share of the border close to its median that makes a background plain
PLAIN_DISTANCE = 10.0  # largest distance in CIELAB that counts as close to that median
BACKGROUND_DISTANCE = 5.0  # largest distance of background; shadows on white products are beyond
MIN_FOREGROUND = 0.05  # smallest share of the picture that is a product and not dust
CENTRE_WIDTH = 0.4  # standard deviation of the weights around the centre, in half sides

_NAMES = tuple(PALETTE)
_ANCHORS = np.array([lab for anchors in PALETTE.values() for lab in anchors], dtype=np.float32)
_OWNERS = np.repeat(np.arange(len(PALETTE)), [len(anchors) for anchors in PALETTE.values()])


class ColourShare(NamedTuple):
    """A colour and the share of a product that has it."""

    colour: str  # name from PALETTE
    share: float  # above 0, up to 1


def name_colours(picture: Image.Image, *, min_share: float = 0.1) -> list[ColourShare]:
    """Return the colours of the product in a picture, the largest share first.

    Nothing is trained. Every pixel gets the colour of the nearest anchor in CIELAB. Pixels near the
    centre count more, because the product is there and a model's face and trousers are not.

    The background is left out if an alpha channel marks it or if it is plain. A plain background is
    the area that touches the border and is close to it in colour, so white parts of a product on
    white still count. In any other picture all pixels count.

    Args:
        picture: Picture of any mode with 8 bits a channel. The result is empty if all of it is
            transparent.
        min_share: Smallest share of a colour in the result. The shares may therefore sum to less
            than 1.

    Raises:
        InvalidArgumentError: If the picture has more than 8 bits a channel, or min_share is not
            between 0 and 1.
    """
    if picture.mode.startswith(("I", "F")):
        raise InvalidArgumentError(
            f"picture must have 8 bits a channel, got mode {picture.mode!r}; "
            "read it with vision.images.load"
        )
    if not 0.0 <= min_share <= 1.0:
        raise InvalidArgumentError(f"min_share must be from 0 to 1, got {min_share}")
    transparent = picture.has_transparency_data
    small = picture.convert("RGBA" if transparent else "RGB").resize(
        (SIDE, SIDE), Image.Resampling.BOX
    )
    pixels = np.asarray(small)
    lab = to_lab(pixels[..., :3])
    foreground = pixels[..., 3] > 127 if transparent else find_foreground(lab)
    weights = _CENTRE[foreground]
    if not len(weights):
        return []
    totals = np.bincount(_nearest(lab[foreground]), weights, minlength=len(_NAMES))
    shares = [
        ColourShare(name, float(total / weights.sum()))
        for name, total in zip(_NAMES, totals, strict=True)
        if total > 0
    ]
    large = [colour for colour in shares if colour.share >= min_share]
    return sorted(large, key=lambda colour: colour.share, reverse=True)


def to_lab(pixels: NDArray[np.uint8]) -> Floats:
    """Return sRGB pixels (..., 3) in CIELAB with white point D65.

    IEC 61966-2-1 (1999) gives linear light and CIE XYZ, and CIE 015:2018 gives the lightness, 0 to
    100, and the two colour axes.
    """
    xyz = _LINEAR[pixels] @ _TO_XYZ
    # Below (6 / 29)^3 the standard replaces the cube root, which is too steep, by its tangent.
    roots = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(roots, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def find_foreground(lab: Floats) -> Bools:
    """Return the mask (H, W) of the pixels in front of a plain background.

    The mask is true everywhere if the background is not plain, or if hardly anything is in front.

    Args:
        lab: Picture in CIELAB (H, W, 3).
    """
    everything = np.ones(lab.shape[:2], dtype=np.bool_)
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    background = np.median(border, axis=0)
    if (_distances(border, background) < PLAIN_DISTANCE).mean() < PLAIN_SHARE:
        return everything
    regions, _ = ndimage.label(_distances(lab, background) < BACKGROUND_DISTANCE)
    at_border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    foreground = ~np.isin(regions, at_border[at_border > 0])
    return foreground if foreground.mean() >= MIN_FOREGROUND else everything


def _distances(lab: Floats, other: Floats) -> Floats:
    distances: Floats = np.linalg.norm(lab - other, axis=-1)
    return distances


def _nearest(lab: Floats) -> Ints:
    """Return the index of the colour (n,) whose anchor is nearest to each pixel (n, 3)."""
    # Half the squared distance without the pixel's own length, which is the same for all anchors.
    distances = (_ANCHORS**2).sum(axis=1) / 2 - lab @ _ANCHORS.T
    owners: Ints = _OWNERS[distances.argmin(axis=1)]
    return owners


def _linear_light() -> Floats:
    """Return the linear light (256,) of every sRGB level."""
    levels = np.arange(256) / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _centre_weights() -> Doubles:
    """Return the weight of every pixel (SIDE, SIDE)."""
    offsets = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    falloff = np.exp(-(offsets**2) / (2 * CENTRE_WIDTH**2))
    return np.outer(falloff, falloff)


_LINEAR = _linear_light()
_CENTRE = _centre_weights()
# Matrix from linear red, green and blue to X, Y and Z, relative to the white point D65.
_TO_XYZ = (
    np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    / np.array([[0.9505], [1.0], [1.089]])
).T.astype(np.float32)
