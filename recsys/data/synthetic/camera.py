"""Draw how an image is taken: in the shop's studio, or by a customer's phone."""

from typing import NamedTuple

import numpy as np

from recsys.data.arrays import Doubles
from recsys.data.synthetic.backdrops import customer_backdrop, studio_backdrop
from recsys.data.synthetic.materials import Pixels
from recsys.data.synthetic.shapes import ellipse

PICTURE_PX = 96


class Shot(NamedTuple):
    """Everything in one image besides the product.

    Args:
        backdrop: Background, (H, W, 3) in [0, 255].
        turn: Rotation in radians.
        scale: Size of the product; 1.0 fills the image.
        shift: Distance of the product's centre from the image's, in half images.
        shear: Sideways slant, from a tilted camera.
        exposure: Gain of each colour channel, (3,).
        blur_px: Radius of the blur.
        noise: Standard deviation of sensor noise.
        occluder: Outline of an object in front, in half images; None without one.
    """

    backdrop: Pixels
    turn: float
    scale: float
    shift: tuple[float, float]
    shear: float
    exposure: Pixels
    blur_px: float
    noise: float
    occluder: Doubles | None

    def place(self, outline: Doubles) -> Doubles:
        """Return the place of an outline (n, 2) of the product in the image, in half images."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        matrix = np.array([[cos, sin], [self.shear * cos - sin, cos + self.shear * sin]])
        placed: Doubles = self.scale * outline @ matrix + self.shift
        return placed


def studio_shot(*, rng: np.random.Generator) -> Shot:
    """Return how the shop takes a picture: straight, centred, well lit."""
    return Shot(
        backdrop=studio_backdrop(PICTURE_PX, rng=rng),
        turn=float(rng.normal(0.0, 0.02)),
        scale=float(rng.uniform(0.78, 0.86)),
        shift=(rng.normal(0.0, 0.02), rng.normal(0.02, 0.02)),
        shear=0.0,
        exposure=np.full(3, rng.normal(1.0, 0.03), dtype=np.float32),
        blur_px=0.0,
        noise=1.5,
        occluder=None,
    )


def customer_shot(*, rng: np.random.Generator) -> Shot:
    """Return how a customer takes a photo: anywhere, at an angle, in whatever light there is."""
    thumb = None
    if rng.random() < 0.35:
        side = rng.uniform(0.0, 2.0 * np.pi)
        thumb = ellipse(1.05 * np.cos(side), 1.05 * np.sin(side), *rng.uniform(0.2, 0.45, 2))
    exposure = rng.uniform(0.75, 1.15) * rng.normal(1.0, 0.05, 3)
    return Shot(
        backdrop=customer_backdrop(PICTURE_PX, rng=rng),
        turn=float(rng.normal(0.0, 0.16)),
        scale=float(rng.uniform(0.66, 0.95)),
        shift=(rng.normal(0.0, 0.09), rng.normal(0.0, 0.09)),
        shear=float(rng.normal(0.0, 0.1)),
        exposure=exposure.astype(np.float32),
        blur_px=float(rng.choice([0.0, 0.0, 0.6, 1.0])),
        noise=float(rng.uniform(2.0, 7.0)),
        occluder=thumb,
    )
