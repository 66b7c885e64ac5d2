"""Named colours of a product, from the pixels of its picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vision.errors import InvalidArgumentError

Lab = tuple[float, float, float]  # lightness, green to red, blue to yellow

# A colour has the pixels that are nearest to one of its anchors, which were placed by hand with
# Myntra's training pictures in view. Dyed cloth is far duller in a picture than its name suggests:
# most anchors are where such cloth is, the last of a colour where print and plastic are.
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
SIDE = 64  # pixels; what is smaller than a 64th of the picture is mixed with what is around it
PLAIN_SHARE = 0.8  # of the picture's border, for its background to be plain
PLAIN_DISTANCE = 10.0  # from the border's median, in CIELAB
BACKGROUND_DISTANCE = 5.0  # further from it is the product; a white one has its shadows there
MIN_FOREGROUND = 0.05  # of the picture; less is dust on a picture of the background's colour
CENTRE_WIDTH = 0.4  # standard deviation of the weight around the centre, in half sides

_NAMES = tuple(PALETTE)
_ANCHORS = np.array([lab for anchors in PALETTE.values() for lab in anchors], dtype=np.float32)
_OWNERS = np.repeat(np.arange(len(PALETTE)), [len(anchors) for anchors in PALETTE.values()])


class ColourShare(NamedTuple):
    """A colour, and how much of a product has it."""

    colour: str  # a name of PALETTE
    share: float  # above 0, up to 1


def name_colours(picture: Image.Image, *, min_share: float = 0.1) -> list[ColourShare]:
    """Return the colours of the product on a picture, the largest share first.

    Nothing is trained. Every pixel has the colour of the anchor that is nearest in CIELAB. Pixels
    count more towards the centre, where the product is and the model's face and trousers are not.
    The background is left out where an alpha channel says where it is, or where it is plain: then
    it is what is connected to the border and close to its colour, so that white parts of a product
    on white still count. Of any other photo all pixels count.

    Args:
        picture: Of any mode with 8 bits a channel; an entirely transparent one has no colour.
        min_share: Colours with less are left out, so that the shares may sum to less than 1.

    Raises:
        InvalidArgumentError: If the picture has more than 8 bits a channel, or min_share is not
            from 0 to 1.
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
    found = [one for one in shares if one.share >= min_share]
    return sorted(found, key=lambda one: one.share, reverse=True)


def to_lab(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return sRGB pixels (..., 3) in CIELAB, under the white of D65.

    IEC 61966-2-1 (1999) to linear light and CIE XYZ, and CIE 015:2018 to lightness (0 to 100) and
    the two colour axes.
    """
    xyz = _LINEAR[pixels] @ _TO_XYZ
    # Below (6 / 29)^3 the cube root would be too steep; the standard goes on with its tangent.
    roots = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(roots, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def find_foreground(lab: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where a picture is not its plain background (H, W); everywhere if it has none.

    Args:
        lab: The picture in CIELAB (H, W, 3).
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


def _distances(lab: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = np.linalg.norm(lab - other, axis=-1)
    return distances


def _nearest(lab: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the colour (n,) of the anchor that is nearest to each pixel (n, 3)."""
    # Half the squared distance, but for the pixel's own length, which is the same to all anchors.
    distances = (_ANCHORS**2).sum(axis=1) / 2 - lab @ _ANCHORS.T
    owners: NDArray[np.int64] = _OWNERS[distances.argmin(axis=1)]
    return owners


def _linear_light() -> NDArray[np.float32]:
    """Return the linear light of every sRGB level (256,)."""
    levels = np.arange(256) / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _centre_weights() -> NDArray[np.float64]:
    """Return how much each pixel counts (SIDE, SIDE)."""
    offsets = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    falloff = np.exp(-(offsets**2) / (2 * CENTRE_WIDTH**2))
    return np.outer(falloff, falloff)


_LINEAR = _linear_light()
_CENTRE = _centre_weights()
# Of linear red, green and blue, to X, Y and Z over those of D65.
_TO_XYZ = (
    np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    / np.array([[0.9505], [1.0], [1.089]])
).T.astype(np.float32)
