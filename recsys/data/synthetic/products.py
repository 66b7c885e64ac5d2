"""Draw the products of the generated shop: facts from which pictures and titles are made."""

from dataclasses import dataclass, fields, replace

import numpy as np

from recsys.data.arrays import Doubles, Ints
from recsys.data.synthetic.vocabulary import (
    BRANDS,
    COLOURS,
    FORMS,
    LEAVES,
    MATERIALS,
    PATTERNS,
    THEMES,
)

N_PROPORTIONS = 4
"""Free numbers in [0, 1] per product with which its shape is drawn."""

_PLAIN_SHARE = 0.1
_PRICE_NOISE = 0.18


@dataclass(frozen=True)
class Products:
    """Facts of N products; each field has shape (N, ...) and codes follow the vocabulary's order.

    Args:
        leaf: Product type.
        colour: Named colour. Seen in pictures only.
        material: Material. Seen in pictures only.
        form: Silhouette. Seen in pictures only.
        pattern: Decoration. Seen in pictures only, and without effect on taste.
        accent: Colour of the decoration, another than the product's. Likewise.
        brand: Brand. Read in titles only.
        theme: Style. Read in titles only.
        rgb: The product's own shade of its colour, in [0, 255], (N, 3).
        proportions: Differences between products of one type and form, in [0, 1], (N, 4).
        price: Price, > 0.
    """

    leaf: Ints
    colour: Ints
    material: Ints
    form: Ints
    pattern: Ints
    accent: Ints
    brand: Ints
    theme: Ints
    rgb: Doubles
    proportions: Doubles
    price: Doubles

    def __len__(self) -> int:
        return len(self.leaf)

    def take(self, rows: Ints | slice) -> "Products":
        """Return the products at ``rows``, in that order."""
        return Products(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def draw_products(n_products: int, *, rng: np.random.Generator) -> Products:
    """Return ``n_products`` products, every fact drawn independently of the look/word divide.

    Look (colour, material, form) and words (brand, theme) are independent, so that neither a
    picture nor a title tells what the other does. Decoration tells products apart that are alike
    in everything that shoppers choose by, as prints and labels do: a photo can then be identified.
    """
    # Whole rounds of the types, shuffled, so that every type is equally frequent.
    leaf = rng.permutation(np.arange(n_products) % len(LEAVES)).astype(np.int64)
    material = _draw_materials(leaf, rng)
    colour = rng.integers(len(COLOURS), size=n_products)
    brand = rng.choice(len(BRANDS), size=n_products, p=_decreasing_shares(len(BRANDS)))
    pattern_shares = [_PLAIN_SHARE] + [(1 - _PLAIN_SHARE) / (len(PATTERNS) - 1)] * (
        len(PATTERNS) - 1
    )
    drawn = Products(
        leaf=leaf,
        colour=colour,
        material=material,
        form=rng.integers(len(FORMS), size=n_products),
        pattern=rng.choice(len(PATTERNS), size=n_products, p=pattern_shares),
        brand=brand,
        theme=rng.integers(len(THEMES), size=n_products),
        rgb=_draw_shades(colour, rng),
        proportions=rng.random((n_products, N_PROPORTIONS)),
        price=_draw_prices(leaf, material, brand, rng),
        accent=colour,
    )
    others = rng.integers(1, len(COLOURS), size=n_products)
    return replace(drawn, accent=(colour + others) % len(COLOURS))


def typical_prices(leaf: Ints) -> Doubles:
    """Return the usual price of each product's type (N,)."""
    return np.array([entry.price for entry in LEAVES.values()])[leaf]


def _draw_materials(leaf: Ints, rng: np.random.Generator) -> Ints:
    names = list(MATERIALS)
    allowed = np.zeros((len(LEAVES), len(names)))
    for row, entry in enumerate(LEAVES.values()):
        allowed[row, [names.index(material) for material in entry.materials]] = 1.0
    ranks = rng.random((len(leaf), len(names))) * allowed[leaf]
    materials: Ints = ranks.argmax(axis=1)
    return materials


def _draw_shades(colour: Ints, rng: np.random.Generator) -> Doubles:
    base = np.array(list(COLOURS.values()), dtype=np.float64)[colour]
    brightness = rng.normal(1.0, 0.05, (len(colour), 1))
    return np.clip(base * brightness + rng.normal(0.0, 5.0, base.shape), 0.0, 255.0)


def _draw_prices(leaf: Ints, material: Ints, brand: Ints, rng: np.random.Generator) -> Doubles:
    factors = (
        np.array(list(MATERIALS.values()))[material]
        * np.array(list(BRANDS.values()))[brand]
        * np.exp(rng.normal(0.0, _PRICE_NOISE, len(leaf)))
    )
    prices: Doubles = np.maximum(np.round(typical_prices(leaf) * factors), 1.0) - 0.05
    return prices


def _decreasing_shares(n: int) -> Doubles:
    weights = 1.0 / (3.0 + np.arange(n))  # some brands are large, none owns the shop
    shares: Doubles = weights / weights.sum()
    return shares
