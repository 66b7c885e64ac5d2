"""Write the titles and descriptions of the generated shop's products."""

import numpy as np

from recsys.data.synthetic.products import Products
from recsys.data.synthetic.vocabulary import BRANDS, COLOURS, LEAVES, MATERIALS, THEMES

# Names of products, which have no effect on taste.
_NAMES = (
    "Alma", "Arvid", "Bodil", "Bruno", "Clara", "Cosmo", "Dahlia", "Edda", "Elio", "Fenna",
    "Flora", "Gala", "Hugo", "Ida", "Ines", "Jonas", "Juno", "Kaia", "Leo", "Luna", "Mila",
    "Nilo", "Odile", "Otto", "Pia", "Rufus", "Saga", "Sven", "Thea", "Vera",
)  # fmt: skip
_TEMPLATES = (
    "{brand} {name} {theme} {noun}",
    "{brand} {theme} {noun} {name}",
    "{theme} {noun} {name} by {brand}",
    "{name} {noun}, {theme}, {brand}",
)
_OCCASIONS = (
    "A gift that gets used.",
    "Made in small batches.",
    "Wipe clean with a soft cloth.",
    "Ships in recycled packaging.",
    "Designed to last.",
)
_WORD_SHARES = (0.6, 0.25, 0.15)  # how often a theme goes by its first, second and third word
_NAMED = 0.6
_TELLS_COLOUR = 0.08
_TELLS_MATERIAL = 0.08
_NO_TITLE = 0.01
_CODE_TITLE = 0.01
_DESCRIBED = 0.35


def write_titles(products: Products, *, rng: np.random.Generator) -> list[str | None]:
    """Return a title per product (N): brand, theme and noun, seldom colour or material.

    About one in a hundred is missing, and as many are an article code that tells nothing.
    """
    titles: list[str | None] = []
    for row in range(len(products)):
        fate = rng.random()
        title = _write_title(products, row, rng)
        if fate < _NO_TITLE:
            titles.append(None)
        elif fate < _NO_TITLE + _CODE_TITLE:
            titles.append(f"ART {rng.integers(10_000, 100_000)}")
        else:
            titles.append(title)
    return titles


def write_descriptions(products: Products, *, rng: np.random.Generator) -> list[str | None]:
    """Return a description of the theme and brand per product (N), None for most products."""
    themes, brands = list(THEMES.values()), list(BRANDS)
    descriptions: list[str | None] = []
    for theme, brand in zip(products.theme, products.brand, strict=True):
        described = rng.random() < _DESCRIBED
        text = (
            f"For {themes[theme].mood}. {_OCCASIONS[rng.integers(len(_OCCASIONS))]} "
            f"From the {brands[brand]} workshop."
        )
        descriptions.append(text if described else None)
    return descriptions


def _write_title(products: Products, row: int, rng: np.random.Generator) -> str:
    leaf = list(LEAVES.values())[products.leaf[row]]
    theme = list(THEMES.values())[products.theme[row]]
    noun = leaf.nouns[rng.choice(len(leaf.nouns), p=_WORD_SHARES)]
    if rng.random() < _TELLS_MATERIAL:
        noun = f"{list(MATERIALS)[products.material[row]]} {noun}"
    if rng.random() < _TELLS_COLOUR:
        noun = f"{list(COLOURS)[products.colour[row]]} {noun}"
    name = _NAMES[rng.integers(len(_NAMES))] if rng.random() < _NAMED else ""
    title = _TEMPLATES[rng.integers(len(_TEMPLATES))].format(
        brand=list(BRANDS)[products.brand[row]],
        theme=theme.words[rng.choice(len(theme.words), p=_WORD_SHARES)],
        noun=noun,
        name=name,
    )
    tidy = " ".join(title.split())
    return tidy[0].upper() + tidy[1:]
