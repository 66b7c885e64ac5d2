"""Draw shoppers with planted tastes in looks and in words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.arrays import Doubles, Ints
from recsys.data.synthetic.products import Products, typical_prices
from recsys.data.synthetic.vocabulary import (
    BRANDS,
    COLOURS,
    FORMS,
    LEAVES,
    MATERIALS,
    THEMES,
)

# How much each fact of a product counts, where one liked value adds this to the utility.
LOOK_WEIGHTS = {"colour": 2.2, "material": 1.6, "form": 0.8}
WORD_WEIGHTS = {"theme": 2.3, "brand": 1.7}

_LIKED = {"colour": 2, "material": 2, "form": 1, "theme": 3, "brand": 5}
_DISLIKED = {"colour": 3, "material": 2, "form": 1, "theme": 4, "brand": 6}
_SIZES = {
    "colour": len(COLOURS),
    "material": len(MATERIALS),
    "form": len(FORMS),
    "theme": len(THEMES),
    "brand": len(BRANDS),
}
_TASTE_NOISE = 0.2
_PRESENT_AT_START = 0.4


@dataclass(frozen=True)
class Shoppers:
    """Hidden tastes of U shoppers; a taste table has one utility per value of its fact.

    Args:
        tastes: Fact name → utilities (U, values), for the facts of look and of words.
        types: Log-affinity to each product type (U, types).
        budget: Preferred log price, relative to the usual price of the type (U,).
        thrift: Utility lost per unit of log price away from the budget (U,).
        activity: Expected shopping sessions a month (U,).
        joined: Month in which the shopper first appears (U,).
    """

    tastes: dict[str, Doubles]
    types: Doubles
    budget: Doubles
    thrift: Doubles
    activity: Doubles
    joined: Ints

    def __len__(self) -> int:
        return len(self.joined)

    def utility(self, products: Products) -> NDArray[np.float32]:
        """Return how much each shopper likes each product, its type and the season apart (U, N)."""
        gap = np.log(products.price / typical_prices(products.leaf))
        utility = -self.thrift[:, None] * np.abs(gap[None, :] - self.budget[:, None])
        for fact, taste in self.tastes.items():
            utility += taste[:, getattr(products, fact)]
        return utility.astype(np.float32)


def draw_shoppers(n_users: int, *, months: int, rng: np.random.Generator) -> Shoppers:
    """Return ``n_users`` shoppers; most join during the first three quarters of ``months``."""
    weights = LOOK_WEIGHTS | WORD_WEIGHTS
    tastes = {fact: weight * _draw_taste(fact, n_users, rng) for fact, weight in weights.items()}
    affinity = rng.normal(0.0, 1.25, (n_users, len(LEAVES)))
    joined = rng.integers(0, max(1, months * 3 // 4), size=n_users)
    joined[rng.random(n_users) < _PRESENT_AT_START] = 0
    return Shoppers(
        tastes=tastes,
        types=affinity,
        budget=rng.normal(0.0, 0.3, n_users),
        thrift=rng.gamma(2.0, 0.6, n_users),
        activity=np.clip(rng.lognormal(-0.9, 0.75, n_users), 0.05, 6.0),
        joined=joined,
    )


def _draw_taste(fact: str, n_users: int, rng: np.random.Generator) -> Doubles:
    """Return +1 for a few values, -1 for a few others and about 0 for the rest (U, values)."""
    ranks = rng.random((n_users, _SIZES[fact])).argsort(axis=1)
    taste = rng.normal(0.0, _TASTE_NOISE, ranks.shape)
    taste[ranks < _LIKED[fact]] += 1.0
    taste[ranks >= _SIZES[fact] - _DISLIKED[fact]] -= 1.0
    return taste
